import { apart, html } from "../dom.js";
import type { Answer, Next } from "./data.js";
import { number, percent } from "./words.js";

/** The tokens that may come next, without the changes and with them, and the difference. */
export class NextTable {
  readonly element = html("section", { class: "card next-tokens", "aria-labelledby": "next-title" });
  private readonly title = html("h2", { id: "next-title" });
  private readonly said = html("p", { class: "said", role: "status" });
  private readonly table = html("table", {});
  private shown: readonly Next[] = [];

  constructor(private readonly explain: (token: number, against: boolean) => void) {
    this.element.append(this.title, this.said, html("div", { class: "next-room" }, this.table));
    this.table.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      const next = this.shown[Number(button?.dataset["row"])];
      if (button && next) this.explain(next.id, button.classList.contains("against"));
    });
  }

  show(answer: Answer): void {
    const focused = document.activeElement instanceof HTMLElement && this.table.contains(document.activeElement) ? document.activeElement : null;
    const where = focused ? `button[data-row="${focused.dataset["row"]}"].${focused.className}` : null;
    const { next, changed, target } = answer;
    this.shown = next;
    this.title.replaceChildren("After “", apart(answer.tokens[answer.position]?.[0] ?? ""), "”");
    this.said.replaceChildren(...sentence(answer));
    const columns = changed ? ["token", "without", "with", "logit change", ""] : ["token", "probability", "logit", ""];
    const most = Math.max(...next.map((each) => Math.max(each.before.probability, each.after.probability)));
    this.table.replaceChildren(
      html("caption", { class: "hush" }, "Likeliest next tokens; choose the one whose logit is explained, or one that it is compared with"),
      html("thead", {}, html("tr", {}, ...columns.map((name) => (name ? html("th", { scope: "col" }, name) : html("td", {}))))),
      html("tbody", {}, ...next.map((each, row) => this.row(each, row, changed, target, most))),
    );
    if (where) this.table.querySelector<HTMLElement>(where)?.focus({ preventScroll: true });
  }

  private row(next: Next, row: number, changed: boolean, [target, against]: readonly number[], most: number): HTMLElement {
    const name = html("button", { type: "button", class: "explain", "data-row": row, "aria-pressed": String(next.id === target) }, apart(next.text));
    name.title = `explain ${next.text.trim()}`;
    const minus = html("button", { type: "button", class: "against", "data-row": row, "aria-pressed": String(next.id === against) }, "−");
    minus.title = `compare with ${next.text.trim()}`;
    minus.setAttribute("aria-label", `Compare with ${next.text}`);
    minus.disabled = next.id === target;
    const change = next.after.logit - next.before.logit;
    const moved = html("span", { class: `change ${change < 0 ? "negative" : "positive"}` }, number(change, 2, true));
    const logit = html("td", { title: `${number(next.before.logit, 3)} without, ${number(next.after.logit, 3)} with` });
    logit.append(...(changed ? [moved] : [number(next.before.logit)]));
    return html(
      "tr",
      {},
      html("th", { scope: "row" }, name),
      share(next.before.probability, most, "before"),
      ...(changed ? [share(next.after.probability, most, "after")] : []),
      logit,
      html("td", {}, minus),
    );
  }
}

function share(probability: number, most: number, kind: string): HTMLElement {
  const bar = html("span", { class: `bar ${kind}` });
  bar.style.width = `${Math.max(0, (100 * probability) / most).toFixed(1)}%`;
  return html("td", { class: "share" }, percent(probability), html("span", { class: "track", "aria-hidden": "true" }, bar));
}

function sentence({ next, changed, divergence }: Answer): (string | Node)[] {
  const best = next.reduce((one, other) => (other.before.logit > one.before.logit ? other : one));
  const now = next[0] ?? best;
  if (!changed) return ["The model expects ", strong(best), `, at ${percent(best.before.probability)}.`];
  const moved = ` The changes moved the answer by ${number(divergence, 3)} nats.`;
  if (now.id === best.id) {
    const odds = `: ${percent(best.before.probability)} before, ${percent(best.after.probability)} now.`;
    return ["The model still expects ", strong(best), odds, moved];
  }
  return ["The model expected ", strong(best), ", and expects ", strong(now), " now.", moved];
}

function strong(next: Next): HTMLElement {
  return html("strong", {}, apart(next.text.trim() || "␣"));
}
