import type { Chosen } from "../chosen.js";
import { html } from "../dom.js";
import type { Answer } from "./data.js";
import { number } from "./words.js";

/** The neurons of an MLP that write most of the logit, to be chosen. */
export class NeuronList {
  readonly element = html("section", { class: "card neurons", hidden: true, "aria-labelledby": "neurons-title" });
  private readonly title = html("h2", { id: "neurons-title" });
  private readonly body = html("tbody", {});
  private layer: number | null = null;

  constructor(private readonly chosen: Chosen) {
    const heads = ["neuron", "adds to the logit", "activation"].map((name) => html("th", { scope: "col" }, name));
    this.element.append(this.title, html("div", { class: "next-room" }, html("table", {}, html("thead", {}, html("tr", {}, ...heads)), this.body)));
    this.body.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (button?.dataset["part"]) this.chosen.set(button.dataset["part"]);
    });
  }

  show({ neurons }: Answer, layer: number | null): void {
    this.layer = layer;
    this.element.hidden = !neurons.length;
    this.title.textContent = `Neurons of MLP ${layer ?? ""}`;
    const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset["part"] : undefined;
    const held = this.body.contains(document.activeElement);
    this.body.replaceChildren(...neurons.map((each) => this.row(each.neuron, each.share, each.activation)));
    if (held) this.body.querySelector<HTMLElement>(`[data-part="${focused}"]`)?.focus({ preventScroll: true });
  }

  private row(neuron: number, share: number, activation: number): HTMLElement {
    const part = `m${this.layer}.n${neuron}`;
    const pressed = String(this.chosen.value === part);
    const button = html("button", { type: "button", class: "explain", "data-part": part, "aria-pressed": pressed }, String(neuron));
    const said = html("span", { class: `change ${share < 0 ? "negative" : "positive"}` }, number(share, 3, true));
    return html("tr", {}, html("th", { scope: "row" }, button), html("td", {}, said), html("td", {}, number(activation, 3)));
  }
}
