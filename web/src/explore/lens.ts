import { apart, html } from "../dom.js";
import type { Answer, LensCell } from "./data.js";

const STEPS: Readonly<Record<string, readonly [rows: number, columns: number]>> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

/** The logit lens as a table: what each reading of the stream would answer at each position. */
export class LensTable {
  readonly element: HTMLElement;
  private readonly table = html("table", { class: "lens", role: "grid", "aria-label": "Logit lens: the likeliest token after each layer" });
  private cells: HTMLElement[][] = [];
  private shape = "";
  private position = -1;
  private first = 0;
  private at: readonly [number, number] = [0, 0];

  constructor(private readonly choose: (reading: number, position: number) => void) {
    this.element = html("div", { class: "lens-room" }, this.table);
    this.table.addEventListener("keydown", (event) => this.press(event));
    this.table.addEventListener("click", (event) => {
      const cell = event.target instanceof Element ? event.target.closest<HTMLElement>("td") : null;
      if (cell) this.take(Number(cell.dataset["r"]), Number(cell.dataset["c"]));
    });
  }

  show({ lens, tokens, position }: Answer, part: string | null): void {
    const shown = tokens.slice(lens.first, lens.first + (lens.cells[0]?.length ?? 0));
    const shape = JSON.stringify([lens.first, lens.sites.length, shown]);
    if (shape !== this.shape) this.build(lens.first, lens.cells, shown);
    lens.cells.forEach((row, r) => row.forEach((cell, c) => this.fill(r, c, cell)));
    this.cells.forEach((row, r) =>
      row.forEach((cell, c) => {
        const here = c + lens.first === position;
        cell.classList.toggle("here", here);
        cell.classList.toggle("chosen", here && part === `s${r}`);
        cell.setAttribute("aria-selected", String(here && part === `s${r}`));
      }),
    );
    if (shape !== this.shape || position !== this.position) this.bring(position - lens.first);
    this.shape = shape;
    this.position = position;
  }

  /** Scroll a column into the table's room, without moving the page. */
  private bring(column: number): void {
    const cell = this.cells[0]?.[column];
    const names = this.table.querySelector<HTMLElement>("tbody th")?.offsetWidth ?? 0;
    if (!cell) return;
    const [left, right] = [cell.offsetLeft - names - 4, cell.offsetLeft + cell.offsetWidth + 4];
    const room = this.element;
    if (left < room.scrollLeft) room.scrollLeft = left;
    else if (right > room.scrollLeft + room.clientWidth) room.scrollLeft = right - room.clientWidth;
  }

  private build(first: number, cells: readonly (readonly LensCell[])[], tokens: Answer["tokens"]): void {
    this.first = first;
    this.cells = cells.map((row, r) => row.map((_, c) => html("td", { "data-r": r, "data-c": c, tabindex: -1 })));
    const heads = tokens.map(([text]) => html("th", { scope: "col" }, apart(text)));
    this.table.replaceChildren(
      html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "after"), ...heads)),
      html("tbody", {}, ...this.cells.map((row, r) => html("tr", {}, html("th", { scope: "row" }, r ? `layer ${r - 1}` : "input"), ...row))),
    );
    const columns = this.cells[0]?.length ?? 1;
    this.at = [Math.min(this.at[0], this.cells.length - 1), Math.min(this.at[1], columns - 1)];
    this.stop();
  }

  private fill(r: number, c: number, [text, probability, shade, changed]: LensCell): void {
    const cell = this.cells[r]?.[c];
    if (!cell) return;
    cell.className = `a${shade}`;
    cell.classList.toggle("moved", changed);
    const said = `${(100 * probability).toFixed(1)} %${changed ? ", another token than without changes" : ""}`;
    cell.title = `${text.trim()}: ${said}`;
    cell.replaceChildren(apart(text.trim()), html("span", { class: "hush" }, ` ${said}`));
  }

  /** One cell is a stop of the Tab key. */
  private stop(): void {
    this.cells.flat().forEach((cell) => (cell.tabIndex = -1));
    const cell = this.cells[this.at[0]]?.[this.at[1]];
    if (cell) cell.tabIndex = 0;
  }

  private go(row: number, column: number): void {
    const cell = this.cells[row]?.[column];
    if (!cell) return;
    this.at = [row, column];
    this.stop();
    cell.focus();
  }

  private take(row: number, column: number): void {
    this.go(row, column);
    this.choose(row, column + this.first);
  }

  private press(event: KeyboardEvent): void {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.take(...this.at);
    }
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    this.go(this.at[0] + step[0], this.at[1] + step[1]);
  }
}
