import type { Chosen } from "../chosen.js";
import { html } from "../dom.js";
import { edgeCard, emptyCard, inWords, nodeCard, type EdgeActions } from "./card.js";
import { CurveView } from "./curve.js";
import type { CircuitData, CircuitNode } from "./data.js";
import { Drawing, type Looked } from "./drawing.js";
import { direction, neighbour } from "./keys.js";
import { Shown } from "./shown.js";

let count = 0;

/**
 * A circuit to look into: a slider over its sizes with the faithfulness beside it, the parts in their
 * places, and a card for what is pointed at, focused or chosen.
 */
export class CircuitView {
  readonly element: HTMLElement;
  private readonly drawing: Drawing;
  private readonly room: HTMLElement;
  private readonly curve: CurveView;
  private readonly slider: HTMLInputElement;
  private readonly said = html("output", { class: "circuit-said" });
  private readonly card = html("div", { class: "circuit-card" });
  private shown: Shown;
  private stop: number;
  private pointed: Looked = null;
  private focused: string | null = null;
  private told = "";

  constructor(
    private readonly data: CircuitData,
    private readonly chosen: Chosen,
    private readonly resized: (edges: number) => void = () => {},
  ) {
    this.stop = data.first;
    this.shown = new Shown(data, this.stop);
    this.drawing = new Drawing(data);
    this.room = html("div", { class: "circuit-room" }, this.drawing.element);
    this.curve = new CurveView(data, (stop) => this.resize(stop));
    const id = `circuit-size-${++count}`;
    this.slider = html("input", { type: "range", id, min: 0, max: data.stops.length - 1, step: 1 });
    this.element = html(
      "div",
      { class: "circuit", role: "group", "aria-label": data.title },
      html(
        "div",
        { class: "circuit-controls" },
        html("div", { class: "circuit-size" }, this.said, html("label", { for: id }, "Size"), this.slider),
        this.curve.element,
      ),
      this.room,
      legend(data),
      this.card,
    );
    this.listen();
    this.draw();
  }

  /** Show the largest size that can be chosen with at most so many edges. */
  showEdges(edges: number): void {
    const fits = this.data.stops.filter((stop) => stop.edges <= edges).length;
    this.resize(Math.max(0, fits - 1));
  }

  private get edges(): number {
    return this.data.stops[this.stop]?.edges ?? 0;
  }

  private resize(stop: number): void {
    const next = Math.min(Math.max(stop, 0), this.data.stops.length - 1);
    if (next === this.stop) return;
    this.stop = next;
    this.shown = new Shown(this.data, next);
    this.draw();
    this.resized(this.edges);
  }

  private draw(): void {
    const stop = this.data.stops[this.stop];
    this.slider.value = String(this.stop);
    if (stop) {
      const [edges, faithfulness, controls] = stop.said;
      this.slider.setAttribute("aria-valuetext", `${edges}, ${faithfulness}`);
      this.said.replaceChildren(
        html("strong", {}, edges),
        html("span", {}, faithfulness),
        ...(controls ? [html("span", { class: "circuit-quiet" }, controls)] : []),
      );
    }
    this.curve.show(this.stop);
    this.drawing.show(this.shown, (node) => inWords(this.data, this.shown, node));
    this.rove();
    this.look();
  }

  /** One part is on the way of the Tab key: the one last focused, the chosen one, or the first. */
  private rove(): void {
    const wanted = [this.focused, this.chosen.value, ...this.shown.parts.map((part) => part.name)];
    const stop = wanted.find((name) => name !== null && (this.shown.has(name) || name === this.focused));
    for (const node of this.data.nodes) {
      this.drawing.of(node.name)?.setAttribute("tabindex", node.name === stop ? "0" : "-1");
    }
  }

  /** Bring out what is pointed at, else focused, else chosen. */
  private look(): void {
    const part = this.focused ?? this.chosen.value;
    const looked = this.pointed ?? (part === null ? null : { part });
    this.drawing.light(this.shown, looked);
    this.drawing.choose(this.chosen.value);
    this.tell(looked);
  }

  /** Fill the card, unless it tells of just this already: a press on one of its edges must not miss. */
  private tell(looked: Looked): void {
    const told = JSON.stringify([this.stop, looked]);
    if (told === this.told) return;
    this.told = told;
    if (looked && "edge" in looked) {
      const ranked = this.shown.edges[looked.edge];
      if (ranked) this.card.replaceChildren(...edgeCard(this.data, this.shown, ranked));
      return;
    }
    const node = looked ? this.shown.node(looked.part) : undefined;
    const said = node ? nodeCard(this.data, this.shown, node, this.ways) : emptyCard(this.shown, this.ways);
    this.card.replaceChildren(...said);
  }

  /** Edges in the card: pointing lights one without changing the card under the pointer. */
  private readonly ways: EdgeActions = {
    point: (at) => {
      const part = this.focused ?? this.chosen.value;
      this.drawing.light(this.shown, at === null ? (part === null ? null : { part }) : { edge: at });
    },
    follow: (part) => {
      this.chosen.set(part);
      this.drawing.of(part)?.focus();
    },
  };

  private listen(): void {
    const { element } = this.drawing;
    this.slider.addEventListener("input", () => this.resize(Number(this.slider.value)));
    element.addEventListener("pointerover", (event) => this.point(found(event.target)));
    element.addEventListener("pointerleave", () => this.point(null));
    element.addEventListener("click", (event) => {
      const looked = found(event.target);
      if (looked && "part" in looked) this.chosen.toggle(looked.part);
      else if (!looked) this.chosen.set(null);
    });
    // not on the drawing itself, which a focus listener would make a stop of the Tab key
    this.room.addEventListener("focusin", (event) => this.focus(found(event.target)));
    const leave = (event: FocusEvent): void => {
      const to = event.relatedTarget;
      if (!(to instanceof Node && (element.contains(to) || this.card.contains(to)))) this.focus(null);
    };
    this.room.addEventListener("focusout", leave);
    this.card.addEventListener("focusout", leave);
    this.element.addEventListener("keydown", (event) => this.press(event));
    this.chosen.listen((part) => {
      this.reveal(part);
      this.rove();
      this.look();
    });
  }

  /** Scroll the drawing, not the page, until a part is seen. */
  private reveal(part: string | null): void {
    const box = part === null ? undefined : this.drawing.of(part)?.getBoundingClientRect();
    if (!box) return;
    const room = this.room.getBoundingClientRect();
    if (box.left >= room.left && box.right <= room.right) return;
    this.room.scrollLeft += box.left + box.width / 2 - room.left - room.width / 2;
  }

  private point(looked: Looked): void {
    const seen = looked && "part" in looked && !this.shown.has(looked.part) ? null : looked;
    if (same(seen, this.pointed)) return;
    this.pointed = seen;
    this.look();
  }

  private focus(looked: Looked): void {
    this.focused = looked && "part" in looked ? looked.part : null;
    if (this.focused !== null) this.pointed = null;
    this.rove();
    this.look();
  }

  private press(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=" || event.key === "-") {
      this.resize(this.stop + (event.key === "-" ? -1 : 1));
    } else if (event.key === "Escape") {
      this.chosen.set(null);
    } else if (!this.walk(event.key)) {
      return;
    }
    event.preventDefault();
  }

  /** Keys that mean something while a part has the focus; false for others. */
  private walk(key: string): boolean {
    const node = this.focused === null ? undefined : this.shown.node(this.focused);
    if (!node) return false;
    if (key === "Enter" || key === " ") {
      this.chosen.toggle(node.name);
      return true;
    }
    const side = direction(key);
    if (!side) return false;
    this.go(neighbour(node, side, this.shown.parts));
    return true;
  }

  private go(node: CircuitNode | undefined): void {
    const drawn = node && this.drawing.of(node.name);
    if (!drawn) return;
    drawn.focus({ preventScroll: true });
    drawn.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

function found(target: EventTarget | null): Looked {
  if (!(target instanceof Element)) return null;
  const part = target.closest<SVGElement>("[data-part]")?.dataset["part"];
  if (part !== undefined) return { part };
  const edge = target.closest<SVGElement>("[data-edge]")?.dataset["edge"];
  return edge === undefined ? null : { edge: Number(edge) };
}

function same(first: Looked, second: Looked): boolean {
  return JSON.stringify(first) === JSON.stringify(second);
}

function legend(data: CircuitData): HTMLElement {
  return html(
    "p",
    { class: "circuit-legend" },
    html("span", { class: "circuit-key positive" }, "supports"),
    html("span", { class: "circuit-key negative" }, "works against"),
    html("span", {}, `width: ${data.score}, at most ${data.most}`),
  );
}
