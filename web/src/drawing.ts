import type { Chosen } from "./chosen.js";
import { all, html, svg } from "./dom.js";
import { walkGrid } from "./grids.js";
import { Hints } from "./hints.js";

/** An element of a drawing as plain values: its name, its attributes, and what is in it. */
export type Tree = readonly [name: string, attributes: Readonly<Record<string, string>>, children: readonly (Tree | string)[]];

/** The elements that `cutaway.views` draws with; no other is made. */
const DRAWN = ["svg", "g", "rect", "line", "path", "circle", "text", "title", "polygon", "polyline"] as const;
type Drawn = (typeof DRAWN)[number];

/** What can be done with a drawing: hints for its marks, and arrow keys over its cells. */
export function enliven(drawing: SVGSVGElement, hints: Hints, chosen: Chosen): () => void {
  hints.watch(drawing);
  return drawing.dataset["grid"] === undefined ? () => {} : walkGrid(drawing, hints, chosen);
}

/** A figure's drawing where there is no page that holds it already. */
export class DrawingView {
  readonly element: HTMLElement;
  readonly drawing: SVGSVGElement;
  private readonly hints: Hints;
  private readonly stop: () => void;

  constructor(tree: Tree, chosen: Chosen) {
    const made = grown(tree);
    if (!(made instanceof SVGSVGElement)) throw new Error("A drawing is an svg element.");
    const tip = html("div", { class: "tip", role: "status", hidden: true });
    this.drawing = made;
    this.element = html("div", { class: "plot" }, made, tip);
    this.hints = new Hints(tip);
    this.stop = enliven(made, this.hints, chosen);
  }

  end(): void {
    this.stop();
    this.hints.end();
  }
}

/** Enliven every drawing of a page. */
export function enlivenAll(hints: Hints, chosen: Chosen): void {
  for (const drawing of all<SVGSVGElement>(".plot > svg.cutaway")) enliven(drawing, hints, chosen);
}

function grown([name, attributes, children]: Tree): SVGElement {
  const known = DRAWN.find((each) => each === name);
  if (!known) throw new Error(`Drawings have no element "${name}".`);
  const kept = Object.fromEntries(Object.entries(attributes).filter(([key]) => /^(?!on|href|style)[a-zA-Z-]+$/.test(key)));
  return svg<Drawn>(known, kept, ...children.map((child) => (typeof child === "string" ? child : grown(child))));
}
