import { apart, html } from "../dom.js";
import type { Shown } from "./data.js";

/** A row of tokens of which one is chosen, with the pointer or the arrow keys. */
export class TokenRow {
  readonly element: HTMLElement;
  private shown = "";
  private chosen = 0;

  constructor(
    label: string,
    private readonly choose: (position: number) => void,
  ) {
    this.element = html("div", { class: "looks-tokens", role: "listbox", "aria-label": label, "aria-orientation": "horizontal" });
    this.element.addEventListener("keydown", (event) => this.press(event));
    this.element.addEventListener("click", (event) => {
      const token = event.target instanceof Element ? event.target.closest<HTMLElement>(".look") : null;
      if (token) this.go(Number(token.dataset["at"]));
    });
  }

  /** Show tokens, keeping the elements where the tokens are the same. */
  show(tokens: readonly Shown[], chosen: number): void {
    const held = this.element.contains(document.activeElement);
    const text = JSON.stringify(tokens);
    if (text !== this.shown) {
      this.shown = text;
      this.element.replaceChildren(
        ...tokens.map(([word, gap], index) =>
          html("span", { role: "option", class: gap ? "look apart" : "look", "data-at": index, title: `token ${index}` }, apart(word)),
        ),
      );
    }
    this.chosen = chosen;
    [...this.element.children].forEach((token, index) => {
      token.classList.toggle("chosen", index === chosen);
      token.setAttribute("aria-selected", String(index === chosen));
      token.setAttribute("tabindex", index === chosen ? "0" : "-1");
    });
    if (held) this.at(chosen)?.focus();
  }

  private at(index: number): HTMLElement | null {
    return this.element.querySelector<HTMLElement>(`[data-at="${index}"]`);
  }

  private go(index: number): void {
    this.at(index)?.focus();
    if (index !== this.chosen) this.choose(index);
  }

  private press(event: KeyboardEvent): void {
    const last = this.element.childElementCount - 1;
    const places: Readonly<Record<string, number>> = {
      ArrowLeft: this.chosen - 1,
      ArrowUp: this.chosen - 1,
      ArrowRight: this.chosen + 1,
      ArrowDown: this.chosen + 1,
      Home: 0,
      End: last,
    };
    const to = places[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.go(Math.min(Math.max(to, 0), last));
  }
}
