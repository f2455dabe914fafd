import { apart, html } from "../dom.js";
import type { Answer, Change } from "./data.js";
import { number, place, told } from "./words.js";

const STRONGEST = 4;

/** The changes that hold, each with what undoes it; a steering has its strength beside it. */
export class ChangeList {
  readonly element = html("section", { class: "card tools", "aria-labelledby": "changes-title" });
  private readonly list = html("ol", { class: "changes" });
  private readonly clear = html("button", { type: "button", class: "button" }, "Remove all");
  private readonly title = html("h2", { id: "changes-title", tabindex: -1 });
  private shown = "";

  constructor(
    private readonly set: (changes: readonly Change[]) => void,
    private changes: readonly Change[] = [],
  ) {
    this.clear.addEventListener("click", () => this.leave([]));
    this.element.append(this.title, this.list, this.clear);
  }

  show(changes: readonly Change[], tokens: Answer["tokens"]): void {
    this.changes = changes;
    this.title.textContent = changes.length ? `Changes (${changes.length})` : "No changes yet";
    this.clear.hidden = changes.length < 2;
    // A slider that is being moved stays as it is: only what its strength says is new.
    const shape = JSON.stringify([changes.map((change) => ({ ...change, strength: 0 })), tokens]);
    if (shape !== this.shown) this.list.replaceChildren(...changes.map((change, index) => this.item(change, index, tokens)));
    this.shown = shape;
  }

  private item(change: Change, index: number, tokens: Answer["tokens"]): HTMLElement {
    const remove = html("button", { type: "button", class: "remove", title: "Remove" }, "×");
    remove.setAttribute("aria-label", `Remove: ${told(change)}`);
    remove.addEventListener("click", () => this.leave(this.changes.filter((_, other) => other !== index)));
    const item = html("li", {}, html("div", { class: "change-said" }, apart(told(change)), html("span", { class: "quiet" }, ` ${place(change.position, tokens)}`)), remove);
    if (change.do === "steer") item.append(this.slider(change.strength, index));
    return item;
  }

  private slider(strength: number, index: number): HTMLElement {
    const said = html("output", {}, number(strength, 1));
    const input = html("input", { type: "range", min: -STRONGEST, max: STRONGEST, step: 0.1, value: strength, "aria-label": "Strength" });
    input.addEventListener("input", () => {
      const value = Number(input.value);
      said.textContent = number(value, 1);
      this.set(this.changes.map((change, other) => (other === index && change.do === "steer" ? { ...change, strength: value } : change)));
    });
    return html("label", { class: "strength" }, html("span", { class: "quiet" }, "strength"), input, said);
  }

  /** Keep only these; the keyboard goes to what is left. */
  private leave(changes: readonly Change[]): void {
    this.set(changes);
    (this.list.querySelector<HTMLElement>(".remove") ?? this.title).focus();
  }
}
