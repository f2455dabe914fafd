import { Chosen } from "../chosen.js";
import { all, html } from "../dom.js";
import { Refused, ask } from "./ask.js";
import { ChangeList } from "./changes.js";
import type { Answer, Change, ModelData, Question, Show } from "./data.js";
import { ScriptDialog, keysDialog } from "./dialogs.js";
import { FigureBox } from "./figure.js";
import { LensTable } from "./lens.js";
import { NeuronList } from "./neurons.js";
import { NextTable } from "./next.js";
import { TokenRow } from "./tokens.js";
import { PartTools, SteerTools } from "./tools.js";

const FIRST = "When Mary and John went to the store, John gave a drink to";
const TYPING = 180;
const SHOWS: readonly (readonly [Show, string])[] = [
  ["edited", "With the changes"],
  ["plain", "Without"],
  ["difference", "Difference"],
];

/** One experiment: what is asked, what was answered, and the views of it. */
export class Bench {
  private question: Question = { prompt: FIRST, changes: [], position: null, head: null, neurons: null, target: null, against: null, show: "edited" };
  private answer: Answer | null = null;
  private asking: AbortController | null = null;
  private typing = 0;
  private readonly chosen = new Chosen();
  private readonly prompt = html("textarea", { id: "prompt", rows: 2, spellcheck: "false", autocomplete: "off" });
  private readonly trouble = html("p", { class: "trouble", role: "alert" });
  private readonly tokens = new TokenRow("The token after which the answer is read", (position) => this.ask({ position }));
  private readonly next = new NextTable((token, against) => this.explain(token, against));
  private readonly lens = new LensTable((reading, position) => {
    this.chosen.set(`s${reading}`);
    this.ask({ position });
  });
  private readonly parts = new FigureBox(this.chosen, "parts-card");
  private readonly attention = new FigureBox(this.chosen, "attention-card");
  private readonly neurons = new NeuronList(this.chosen);
  private readonly changes = new ChangeList((changes) => this.ask({ changes }));
  private readonly tools = new PartTools((change) => this.change(change));
  private readonly steer: SteerTools;
  private readonly shows = html("fieldset", { class: "shows", hidden: true }, html("legend", { class: "hush" }, "Which run the views show"));
  private readonly script = new ScriptDialog();
  private readonly keys = keysDialog();

  constructor(
    private readonly model: ModelData,
    private readonly page: HTMLElement,
  ) {
    this.steer = new SteerTools(model, (change) => this.change(change));
    for (const [show, name] of SHOWS) {
      const radio = html("input", { type: "radio", name: "show", value: show, checked: show === "edited" });
      radio.addEventListener("change", () => this.ask({ show }));
      this.shows.append(html("label", {}, radio, name));
    }
    this.prompt.value = FIRST;
    this.prompt.addEventListener("input", () => this.typed());
    this.chosen.listen((part) => this.choose(part));
    addEventListener("keydown", (event) => this.press(event));
    this.lay();
    this.ask({});
  }

  /** Show the script, once the server has written it. */
  async save(): Promise<void> {
    try {
      this.script.open((await ask<{ script: string }>("script", this.question)).script);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.trouble.textContent = error.message;
    }
  }

  /** Show the keys. */
  help(): void {
    if (!this.keys.open) this.keys.showModal();
  }

  private lay(): void {
    const lens = html("section", { class: "card lens-card", "aria-labelledby": "lens-title" }, html("h2", { id: "lens-title" }, "What each layer would answer"), this.lens.element);
    this.page.replaceChildren(
      html("section", { class: "asking" }, html("label", { for: "prompt" }, "Prompt"), this.prompt, this.trouble, this.tokens.element),
      html(
        "div",
        { class: "bench" },
        html("div", { class: "views" }, this.next.element, this.shows, lens, this.parts.element, this.attention.element, this.neurons.element),
        html("div", { class: "workshop" }, this.changes.element, this.tools.element, this.steer.element),
      ),
    );
  }

  /** Ask with something new in the question; what was asked before is taken back. */
  private ask(news: Partial<Question>): void {
    this.question = { ...this.question, ...news };
    clearTimeout(this.typing);
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    this.page.setAttribute("aria-busy", "true");
    ask<Answer>("ask", this.question, asking.signal)
      .then((answer) => {
        if (!asking.signal.aborted) this.show(answer);
      })
      .catch((error: unknown) => {
        if (asking.signal.aborted) return;
        this.page.setAttribute("aria-busy", "false");
        this.trouble.textContent = error instanceof Refused ? error.message : String(error);
        this.changes.show(this.question.changes, this.answer?.tokens ?? []);
      });
  }

  private show(answer: Answer): void {
    this.answer = answer;
    this.trouble.textContent = "";
    this.tokens.show(answer.tokens, answer.position);
    this.next.show(answer);
    this.shows.hidden = !answer.changed;
    this.parts.show(answer.parts);
    this.attention.show(answer.attention);
    this.neurons.show(answer, this.question.neurons);
    this.lens.show(answer, this.chosen.value);
    this.changes.show(this.question.changes, answer.tokens);
    this.tools.show(this.chosen.value, answer);
    this.steer.show(this.chosen.value, answer);
    this.page.setAttribute("aria-busy", "false");
  }

  /** A new prompt has other tokens: what was chosen by number starts at its end again. */
  private typed(): void {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.ask({ prompt: this.prompt.value, position: null }), TYPING);
  }

  private change(change: Change): void {
    this.ask({ changes: [...this.question.changes, change] });
  }

  private explain(token: number, against: boolean): void {
    if (against) this.ask({ against: this.question.against === token ? null : token });
    else this.ask({ target: this.question.target === token ? null : token, against: null });
  }

  private choose(part: string | null): void {
    const [, kind, layer, index] = /^([am])(\d+)(?:\.[hn](\d+))?$/.exec(part ?? "") ?? [];
    if (kind === "a") return this.ask({ head: [Number(layer), Number(index)], neurons: null });
    if (kind === "m" && this.model.neurons) return this.ask({ neurons: Number(layer) });
    if (this.answer) this.show(this.answer);
  }

  private press(event: KeyboardEvent): void {
    const typing = event.target instanceof Element && event.target.matches("input:not([type=radio],[type=checkbox],[type=range]),textarea,select");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const does: Readonly<Record<string, () => void>> = {
      "/": () => this.prompt.focus(),
      "?": () => this.help(),
      a: () => this.tools.ablate(),
      p: () => this.tools.focus(),
      s: () => this.steer.focus(),
      z: () => this.ask({ changes: this.question.changes.slice(0, -1) }),
      d: () => this.turn(),
    };
    const act = does[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  private turn(): void {
    const radios = all<HTMLInputElement>("input", this.shows);
    const at = radios.findIndex((radio) => radio.checked);
    const next = radios[(at + 1) % radios.length];
    if (!this.shows.hidden && next) next.click();
  }
}
