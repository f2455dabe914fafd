import { all } from "../dom.js";
import type { Hints } from "./hints.js";

const STEPS: Readonly<Record<string, readonly [rows: number, columns: number]>> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** Grids: one stop of the Tab key each; arrow keys walk the cells. */
export function walkGrids(hints: Hints): void {
  for (const drawing of all<SVGSVGElement>("svg[data-grid]")) walkGrid(drawing, hints);
}

function walkGrid(drawing: SVGSVGElement, hints: Hints): void {
  const cells = new Map<string, SVGElement>();
  for (const cell of all<SVGElement>("[data-r]", drawing)) {
    cells.set(`${cell.dataset["r"]},${cell.dataset["c"]}`, cell);
  }
  let at: SVGElement | null = null;
  const go = (row: number, column: number): void => {
    const next = cells.get(`${row},${column}`);
    if (!next) return;
    at?.classList.remove("at");
    at = next;
    at.classList.add("at");
    at.scrollIntoView({ block: "nearest", inline: "nearest" });
    hints.walk(at);
  };
  drawing.setAttribute("tabindex", "0");
  drawing.setAttribute("aria-keyshortcuts", Object.keys(STEPS).join(" "));
  drawing.addEventListener("focus", () => {
    if (drawing.matches(":focus-visible")) go(0, 0);
  });
  drawing.addEventListener("blur", () => {
    at?.classList.remove("at");
    at = null;
    hints.leave();
  });
  drawing.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    if (at) go(Number(at.dataset["r"]) + step[0], Number(at.dataset["c"]) + step[1]);
    else go(0, 0);
  });
}
