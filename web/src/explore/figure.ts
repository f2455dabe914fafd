import type { Chosen } from "../chosen.js";
import { html } from "../dom.js";
import { DrawingView } from "../drawing.js";
import { mount } from "../live.js";
import type { FigureData } from "./data.js";

/** A figure that is drawn again with every answer; the keyboard stays where it was in it. */
export class FigureBox {
  readonly element: HTMLElement;
  private drawn: DrawingView | null = null;
  private shown = "";

  constructor(
    private readonly chosen: Chosen,
    kind: string,
  ) {
    this.element = html("figure", { class: `card ${kind}` });
  }

  show(figure: FigureData): void {
    const text = JSON.stringify(figure);
    if (text === this.shown) return;
    this.shown = text;
    const focused = this.element.contains(document.activeElement) ? document.activeElement : null;
    const at = this.drawn?.drawing.dataset["at"];
    const left = this.element.querySelector(".plot")?.scrollLeft ?? 0;
    this.drawn?.end();
    const drawn = new DrawingView(figure.drawing, this.chosen);
    this.drawn = drawn;
    if (at !== undefined) drawn.drawing.dataset["at"] = at;
    const view = figure.kind ? mount(figure.kind, figure.data, { chosen: this.chosen, drawing: drawn.drawing }) : null;
    this.element.replaceChildren(
      html("h2", {}, figure.title),
      ...(view ? [view.element] : []),
      drawn.element,
      html("figcaption", {}, figure.shows),
    );
    drawn.element.scrollLeft = left;
    if (focused instanceof SVGSVGElement) drawn.drawing.focus({ preventScroll: true });
    else if (focused) view?.element.querySelector<HTMLElement>(".look.chosen")?.focus({ preventScroll: true });
  }
}
