import { html } from "../dom.js";
import type { Answer, Change, ModelData } from "./data.js";
import { Refused, ask } from "./ask.js";
import type { Shown } from "./data.js";
import { TokenRow } from "./tokens.js";
import { called, place, siteOf } from "./words.js";

/** What can be done to the part that is chosen: take it away, or take its value from another prompt. */
export class PartTools {
  readonly element = html("section", { class: "card tools", "aria-labelledby": "part-title" });
  private readonly title = html("h2", { id: "part-title" });
  private readonly hint = html("p", { class: "said" }, "Choose a head or an MLP in the map, a neuron, or a cell of the lens; then ablate it or patch it here.");
  private readonly here = html("input", { type: "radio", name: "where", value: "here" });
  private readonly everywhere = html("input", { type: "radio", name: "where", value: "everywhere", checked: true });
  private readonly hereName = html("span", {});
  private readonly body = html("div", {});
  private readonly other = html("input", { type: "text", id: "other", autocomplete: "off", spellcheck: "false" });
  private readonly row = new TokenRow("Token of the other prompt whose value is taken", (at) => this.from(at));
  private readonly source = html("div", { class: "source", hidden: true });
  private readonly trouble = html("p", { class: "trouble", role: "alert" });
  private site: string | null = null;
  private tokens: Answer["tokens"] = [];
  private position = 0;
  private others: readonly Shown[] = [];
  private taken = 0;

  constructor(private readonly add: (change: Change) => void) {
    const zero = this.button("Ablate", "a", () => this.ablate("zero"));
    const mean = this.button("Set to its mean", "", () => this.ablate("mean"));
    const patch = html("button", { type: "submit", class: "button" }, "Patch");
    const form = html("form", { class: "patching" }, html("label", { for: "other" }, "Value from another prompt"), html("div", { class: "fields" }, this.other, patch), this.source);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.patch();
    });
    this.other.addEventListener("input", () => void this.split());
    for (const radio of [this.here, this.everywhere]) radio.addEventListener("change", () => this.showSource());
    this.source.append(html("p", { class: "quiet" }, "taken at"), this.row.element);
    this.body.append(
      html("fieldset", { class: "where" }, html("legend", { class: "hush" }, "Where"), html("label", {}, this.everywhere, "everywhere"), html("label", {}, this.here, this.hereName)),
      html("div", { class: "fields" }, zero, mean),
      form,
      this.trouble,
    );
    this.element.append(this.title, this.hint, this.body);
  }

  show(part: string | null, { tokens, position }: Pick<Answer, "tokens" | "position">): void {
    const site = part === null ? null : siteOf(part);
    if (site !== this.site && part?.startsWith("s")) this.here.checked = true;
    else if (site !== this.site && this.site?.startsWith("resid")) this.everywhere.checked = true;
    this.site = site;
    const moved = position !== this.position || tokens.length !== this.tokens.length;
    this.tokens = tokens;
    this.position = position;
    if (moved) this.align();
    this.title.textContent = site === null ? "Nothing is chosen" : called(site);
    this.hint.hidden = site !== null;
    this.body.hidden = site === null;
    this.hereName.textContent = place(position, tokens);
    this.showSource();
  }

  /** Set the chosen part to zero. */
  ablate(mode: "zero" | "mean" = "zero"): void {
    if (this.site !== null) this.add({ do: "ablate", site: this.site, position: this.where, mode });
  }

  /** Go to where the other prompt is typed. */
  focus(): void {
    this.other.focus();
  }

  private get where(): number | null {
    return this.here.checked ? this.position : null;
  }

  private patch(): void {
    const prompt = this.other.value;
    if (this.site === null || !prompt) return;
    const source = this.where === null ? null : this.taken;
    this.add({ do: "patch", site: this.site, position: this.where, prompt, source_position: source });
  }

  /** The other prompt's token that stands as far from its end: prompts that end alike line up there. */
  private align(): void {
    const last = this.others.length - 1;
    this.taken = Math.min(Math.max(0, this.position + this.others.length - this.tokens.length), Math.max(0, last));
  }

  private from(at: number): void {
    this.taken = at;
    this.row.show(this.others, at);
  }

  /** Show how the other prompt splits, once it is typed. */
  private async split(): Promise<void> {
    const prompt = this.other.value;
    this.trouble.textContent = "";
    if (!prompt) {
      this.others = [];
      return this.showSource();
    }
    try {
      const { tokens } = await ask<{ tokens: readonly Shown[] }>("tokens", { prompt });
      if (prompt !== this.other.value) return;
      this.others = tokens;
      this.align();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (prompt === this.other.value) this.trouble.textContent = error.message;
    }
    this.showSource();
  }

  private showSource(): void {
    this.source.hidden = !this.here.checked || !this.others.length;
    this.row.show(this.others, this.taken);
  }

  private button(name: string, key: string, act: () => void): HTMLButtonElement {
    const made = html("button", { type: "button", class: "button", "aria-keyshortcuts": key || null }, name);
    made.addEventListener("click", act);
    return made;
  }
}

/** Steering: a direction added to the stream, towards a token or from one prompt to another. */
export class SteerTools {
  readonly element = html("section", { class: "card tools", "aria-labelledby": "steer-title" });
  private readonly layer = html("select", { id: "steer-layer" });
  private readonly kind = html("select", { id: "steer-kind" }, html("option", { value: "token" }, "towards a token"), html("option", { value: "between" }, "from one prompt to another"));
  private readonly token = html("input", { type: "text", id: "steer-token", autocomplete: "off", spellcheck: "false", placeholder: " Mary" });
  private readonly minus = html("input", { type: "text", id: "steer-minus", autocomplete: "off", spellcheck: "false" });
  private readonly plus = html("input", { type: "text", id: "steer-plus", autocomplete: "off", spellcheck: "false" });
  private readonly here = html("input", { type: "checkbox", checked: true });
  private readonly hereName = html("span", {});
  private position = 0;

  constructor(model: ModelData, add: (change: Change) => void) {
    for (let reading = 0; reading <= model.layers; reading++) {
      const name = reading ? `after layer ${reading - 1}` : "into layer 0";
      this.layer.append(html("option", { value: reading ? `resid_post.${reading - 1}` : "resid_pre.0" }, name));
    }
    this.layer.selectedIndex = Math.ceil(model.layers / 2);
    const tokenField = field("Token", this.token);
    const ends = html("div", { hidden: true }, field("From", this.minus), field("To", this.plus));
    const form = html(
      "form",
      {},
      html("div", { class: "fields" }, field("Stream", this.layer), field("Direction", this.kind)),
      tokenField,
      ends,
      html("label", { class: "check" }, this.here, this.hereName),
      html("button", { type: "submit", class: "button" }, "Steer"),
    );
    this.kind.addEventListener("change", () => {
      ends.hidden = this.kind.value === "token";
      tokenField.hidden = !ends.hidden;
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const change = this.change();
      if (change) add(change);
    });
    this.element.append(html("h2", { id: "steer-title" }, "Steer the stream"), form);
  }

  show(part: string | null, { tokens, position }: Answer): void {
    this.position = position;
    this.hereName.textContent = `only ${place(position, tokens)}`;
    if (part?.startsWith("s")) this.layer.value = siteOf(part);
  }

  /** Go to where the token is typed. */
  focus(): void {
    (this.kind.value === "token" ? this.token : this.minus).focus();
  }

  private change(): Change | null {
    const site = this.layer.value;
    const position = this.here.checked ? this.position : null;
    if (this.kind.value === "token") return this.token.value ? { do: "steer", site, position, strength: 1, token: this.token.value } : null;
    const [plus, minus] = [this.plus.value, this.minus.value];
    return plus && minus ? { do: "steer", site, position, strength: 1, plus, minus } : null;
  }
}

function field(name: string, input: HTMLElement): HTMLElement {
  return html("p", { class: "field" }, html("label", { for: input.id }, name), input);
}
