import { svg } from "../dom.js";
import type { CircuitData } from "./data.js";

/** Faithfulness against size, with the size that is shown marked; a click chooses the nearest. */
export class CurveView {
  readonly element: SVGSVGElement;
  private readonly point: SVGCircleElement;

  constructor(private readonly data: CircuitData, choose: (stop: number) => void) {
    const { curve } = data;
    const [left, right] = [26, curve.width - 6];
    this.point = svg("circle", { r: 5, class: "dot amount" });
    const reference = (y: number, text: string): SVGElement[] => [
      svg("line", { x1: left, y1: y, x2: right, y2: y, class: "reference" }),
      svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, text),
    ];
    const foot = curve.height - 4;
    this.element = svg(
      "svg",
      { viewBox: `0 0 ${curve.width} ${curve.height}`, class: "cutaway circuit-curve", "aria-hidden": "true" },
      ...reference(curve.zero, "0"),
      ...reference(curve.one, "1"),
      svg("polygon", { points: curve.band, class: "area amount" }),
      ...curve.controls.map(([x, y]) => svg("line", { x1: x - 2.5, y1: y, x2: x + 2.5, y2: y, class: "control" })),
      svg("polyline", { points: curve.line, class: "curve amount" }),
      this.point,
      svg("text", { x: left, y: foot }, curve.ends[0]),
      svg("text", { x: right, y: foot, "text-anchor": "end" }, curve.ends[1]),
    );
    this.element.addEventListener("click", (event) => choose(this.nearest(event.clientX)));
  }

  /** Mark a size. */
  show(stop: number): void {
    const at = this.data.stops[stop];
    if (!at) return;
    this.point.setAttribute("cx", String(at.x));
    this.point.setAttribute("cy", String(at.y));
  }

  private nearest(clientX: number): number {
    const box = this.element.getBoundingClientRect();
    const x = ((clientX - box.left) / box.width) * this.data.curve.width;
    const away = this.data.stops.map((stop) => Math.abs(stop.x - x));
    return away.indexOf(Math.min(...away));
  }
}
