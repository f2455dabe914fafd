import type { Chosen } from "./chosen.js";
import { all } from "./dom.js";
import type { Hints } from "./hints.js";

const STEPS: Readonly<Record<string, readonly [rows: number, columns: number]>> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/**
 * A grid of cells: one stop of the Tab key, arrow keys walk, and a cell that stands for a part of the
 * model chooses it by a click or Enter, and is marked when it is chosen elsewhere. Coming back to a
 * grid is coming back to the cell that was left. Gives back what stops the marking.
 */
export function walkGrid(drawing: SVGSVGElement, hints: Hints, chosen: Chosen): () => void {
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
    drawing.dataset["at"] = `${row},${column}`;
    at.classList.add("at");
    at.scrollIntoView({ block: "nearest", inline: "nearest" });
    hints.walk(at);
  };
  const choose = (cell: Element | null): boolean => {
    const part = cell instanceof SVGElement ? cell.dataset["part"] : undefined;
    if (part === undefined) return false;
    chosen.toggle(part);
    return true;
  };
  drawing.setAttribute("tabindex", "0");
  drawing.setAttribute("aria-keyshortcuts", [...Object.keys(STEPS), "Enter"].join(" "));
  drawing.addEventListener("focus", () => {
    if (!drawing.matches(":focus-visible")) return;
    const [row, column] = (drawing.dataset["at"] ?? "0,0").split(",");
    go(Number(row), Number(column));
    if (!at) go(0, 0);
  });
  drawing.addEventListener("blur", () => {
    at?.classList.remove("at");
    at = null;
    hints.leave();
  });
  drawing.addEventListener("click", (event) => {
    if (event.target instanceof Element) choose(event.target.closest("[data-part]"));
  });
  drawing.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && choose(at)) return;
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    if (at) go(Number(at.dataset["r"]) + step[0], Number(at.dataset["c"]) + step[1]);
    else go(0, 0);
  });
  return mark(drawing, chosen);
}

/** Mark the cells of the part that is chosen. */
function mark(drawing: SVGSVGElement, chosen: Chosen): () => void {
  const parts = all<SVGElement>("[data-part]", drawing);
  if (!parts.length) return () => {};
  const show = (part: string | null): void => {
    for (const cell of parts) cell.classList.toggle("chosen", cell.dataset["part"] === part);
  };
  show(chosen.value);
  return chosen.listen(show);
}
