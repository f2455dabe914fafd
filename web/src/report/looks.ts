import { all } from "../dom.js";

/** Attention over the text: the pointer, the arrow keys or a row of the map choose the query. */
export function chooseQueries(): void {
  for (const box of all(".looks")) new Looks(box);
}

class Looks {
  private readonly tokens: HTMLElement[];
  private readonly shades: number[][];
  private readonly weights: number[][];

  constructor(box: HTMLElement) {
    this.tokens = all(".look", box);
    this.shades = JSON.parse(box.dataset["shades"] ?? "[]") as number[][];
    this.weights = JSON.parse(box.dataset["weights"] ?? "[]") as number[][];
    this.tokens.forEach((token, index) => {
      token.addEventListener("pointerenter", () => this.choose(index));
      token.addEventListener("focus", () => this.choose(index));
      token.addEventListener("keydown", (event) => this.press(event, index));
    });
    const map = box.parentElement?.querySelector("svg[data-grid=attention]");
    map?.addEventListener("pointerover", (event) => {
      const row = event.target instanceof SVGElement ? event.target.dataset["r"] : undefined;
      if (row !== undefined) this.choose(Number(row));
    });
    this.choose(Number(box.dataset["query"]));
  }

  private choose(query: number): void {
    this.tokens.forEach((token, index) => {
      const seen = index <= query;
      const apart = token.classList.contains("apart") ? " apart" : "";
      token.className = `look${apart} a${seen ? (this.shades[query]?.[index] ?? 0) : 0}`;
      token.classList.toggle("after", !seen);
      token.classList.toggle("chosen", index === query);
      token.setAttribute("aria-selected", String(index === query));
      token.tabIndex = index === query ? 0 : -1;
      token.title = seen ? `attention ${(this.weights[query]?.[index] ?? 0).toFixed(2)}` : "comes later";
    });
  }

  private press(event: KeyboardEvent, index: number): void {
    const last = this.tokens.length - 1;
    const places: Readonly<Record<string, number>> = {
      ArrowLeft: index - 1,
      ArrowUp: index - 1,
      ArrowRight: index + 1,
      ArrowDown: index + 1,
      Home: 0,
      End: last,
    };
    const to = places[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.tokens[Math.min(Math.max(to, 0), last)]?.focus();
  }
}
