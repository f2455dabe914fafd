import { apart, html } from "./dom.js";

/** What `cutaway.views.attention` writes for this view. */
export interface LooksData {
  /** The tokens, without the blank that some begin with, and whether they do. */
  readonly tokens: readonly (readonly [text: string, apart: boolean])[];
  /** Row i: the attention of query i to the tokens up to it, and the step of its colour. */
  readonly weights: readonly (readonly number[])[];
  readonly shades: readonly (readonly number[])[];
  /** The query shown first. */
  readonly query: number;
}

/** Attention over the text: the pointer, the arrow keys or a row of the map choose the query. */
export class LooksView {
  readonly element: HTMLElement;
  private readonly tokens: HTMLElement[];

  constructor(private readonly data: LooksData, map: SVGSVGElement | null) {
    this.tokens = data.tokens.map(([text]) => html("span", { role: "option" }, apart(text)));
    this.tokens.forEach((token, index) => {
      token.addEventListener("pointerenter", () => this.choose(index));
      token.addEventListener("focus", () => this.choose(index));
      token.addEventListener("keydown", (event) => this.press(event, index));
    });
    map?.addEventListener("pointerover", (event) => {
      const row = event.target instanceof SVGElement ? event.target.dataset["r"] : undefined;
      if (row !== undefined) this.choose(Number(row));
    });
    const list = { class: "looks-tokens", role: "listbox", "aria-label": "Query token", "aria-orientation": "horizontal" };
    this.element = html(
      "div",
      { class: "looks" },
      html(
        "p",
        { class: "looks-said" },
        "The boxed token looks at the shaded ones. ",
        html("span", { class: "looks-how" }, "Choose another with the pointer or the arrow keys."),
      ),
      html("div", list, ...this.tokens),
    );
    this.choose(data.query);
  }

  private choose(query: number): void {
    const { shades, weights } = this.data;
    this.tokens.forEach((token, index) => {
      const seen = index <= query;
      const gap = this.data.tokens[index]?.[1] ? " apart" : "";
      const after = seen ? "" : " after";
      token.className = `look${gap} a${seen ? (shades[query]?.[index] ?? 0) : 0}${after}`;
      token.classList.toggle("chosen", index === query);
      token.dataset["at"] = String(index);
      token.setAttribute("aria-selected", String(index === query));
      token.tabIndex = index === query ? 0 : -1;
      token.title = seen ? `attention ${(weights[query]?.[index] ?? 0).toFixed(2)}` : "comes later";
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
