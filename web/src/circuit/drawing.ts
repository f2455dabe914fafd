import { svg } from "../dom.js";
import type { CircuitData, CircuitNode } from "./data.js";
import type { Ranked, Shown } from "./shown.js";

/** How far a drawing shrinks with its page before it scrolls. */
const SMALLEST = 0.8;

/** What is looked at: a part, or an edge by its place in the order. */
export type Looked = { readonly part: string } | { readonly edge: number } | null;

function touched(shown: Shown, looked: Looked): Ranked[] {
  if (!looked) return [];
  if ("edge" in looked) return shown.edges.filter(({ at }) => at === looked.edge);
  return [...shown.into(looked.part), ...shown.outOf(looked.part)];
}

/** The parts in their places and the edges between them; edges are made when first shown. */
export class Drawing {
  readonly element: SVGSVGElement;
  private readonly parts = new Map<string, SVGGElement>();
  private readonly paths: SVGPathElement[] = [];
  private readonly hits: SVGPathElement[] = [];
  private readonly lines = svg("g");
  private readonly targets = svg("g");
  private readonly below = svg("g");
  private readonly above = svg("g");

  constructor(private readonly data: CircuitData) {
    const headings = data.headings.map(([x, text]) => svg("text", { x, y: 13, "text-anchor": "middle" }, text));
    this.element = svg(
      "svg",
      {
        viewBox: `0 0 ${data.width} ${data.height}`,
        width: data.width,
        class: "cutaway circuit-drawing",
        role: "group",
        "aria-label": `${data.title}: parts of the model by layer`,
      },
      svg("g", { "aria-hidden": "true" }, ...headings),
      this.below,
      this.lines,
      this.targets,
      this.above,
    );
    this.element.style.minWidth = `${Math.round(data.width * SMALLEST)}px`;
    for (const node of data.nodes) this.parts.set(node.name, this.part(node));
  }

  /** The element of a part. */
  of(part: string): SVGGElement | undefined {
    return this.parts.get(part);
  }

  /** Draw the circuit of one size. */
  show(shown: Shown, words: (node: CircuitNode) => string): void {
    const many = shown.edges.length;
    for (let at = this.paths.length; at < many; at++) this.line(at);
    this.paths.forEach((path, at) => path.classList.toggle("off", at >= many));
    this.hits.forEach((path, at) => path.classList.toggle("off", at >= many));
    for (const node of this.data.nodes) {
      const drawn = this.parts.get(node.name);
      if (!drawn) continue;
      const used = shown.has(node.name);
      drawn.classList.toggle("unused", !used);
      if (used) {
        drawn.setAttribute("aria-label", words(node));
        drawn.removeAttribute("aria-hidden");
        if (drawn.parentNode !== this.above) this.above.append(drawn);
      } else {
        drawn.setAttribute("aria-hidden", "true");
        if (drawn.parentNode !== this.below) this.below.append(drawn);
      }
    }
  }

  /** Bring out what is looked at, and let the rest stand back. */
  light(shown: Shown, looked: Looked): void {
    const near = new Set<string>();
    const lit = new Set<number>();
    for (const { edge, at } of touched(shown, looked)) {
      lit.add(at);
      near.add(edge.from).add(edge.to);
    }
    if (looked && "part" in looked) near.add(looked.part);
    this.element.classList.toggle("looking", looked !== null);
    this.paths.forEach((path, at) => path.classList.toggle("lit", lit.has(at)));
    for (const [name, drawn] of this.parts) drawn.classList.toggle("lit", near.has(name));
  }

  /** Mark the part that is chosen. */
  choose(part: string | null): void {
    for (const [name, drawn] of this.parts) {
      drawn.classList.toggle("chosen", name === part);
      drawn.setAttribute("aria-pressed", String(name === part));
    }
  }

  private line(at: number): void {
    const edge = this.data.edges[at];
    if (!edge) return;
    const kind = edge.dashes ? "negative" : "positive";
    const path = svg("path", {
      d: edge.d,
      class: `edge ${kind}`,
      "stroke-width": edge.width,
      "stroke-opacity": edge.strength,
      "stroke-dasharray": edge.dashes || null,
      "aria-hidden": "true",
    });
    const hit = svg("path", { d: edge.d, class: "circuit-hit", "data-edge": at, "aria-hidden": "true" });
    hit.setAttribute("stroke-width", String(Math.max(9, edge.width)));
    this.paths.push(path);
    this.hits.push(hit);
    this.lines.prepend(path); // strong edges lie above weak ones
    this.targets.prepend(hit);
  }

  private part(node: CircuitNode): SVGGElement {
    const [x, y, width, height] = node.box;
    const round = node.kind === "head" || node.kind === "kv" || node.kind === "neuron";
    const radius = Math.min(width, height) / (round ? 2 : 5);
    const shape = svg("rect", { x, y, width, height, rx: radius, class: round ? "part" : "part block" });
    const drawn = svg("g", { class: "circuit-part", role: "button", tabindex: "-1", "data-part": node.name }, shape);
    const [middle, centre] = [x + width / 2, y + height / 2];
    if (node.kind === "input" || node.kind === "logits") {
      const turned = `rotate(-90 ${middle + 3.5} ${centre})`;
      drawn.append(
        svg("text", { x: middle + 3.5, y: centre, class: "called", "text-anchor": "middle", transform: turned }, node.kind),
      );
    } else if (this.data.labelled && (node.kind === "head" || node.kind === "mlp")) {
      const kind = this.data.sparse ? "called" : "called spare";
      drawn.append(svg("text", { x: middle, y: centre + 3.6, class: kind, "text-anchor": "middle" }, node.short));
    }
    this.below.append(drawn);
    return drawn;
  }
}
