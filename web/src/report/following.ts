import type { Chosen } from "../chosen.js";
import { all, apart, html } from "../dom.js";
import { factList, known } from "./known.js";

const NARROW = "(max-width: 640px)";

/**
 * What is chosen anywhere, shown everywhere: the figures that hold it are outlined, and a panel at the
 * foot of the page tells what is known of it and goes from one figure to the next.
 */
export function followChosen(chosen: Chosen): void {
  const cards = all(".card").filter((card) => card.dataset["part"] || drawn(card).length);
  if (!cards.length && !all(".mention").length) return;
  const said = html("p", { class: "following-said", role: "status" });
  const facts = html("div", { class: "following-facts", id: "following-facts", tabindex: 0, role: "group", "aria-label": "What is known of it" });
  const [back, on, fold, off] = ["Previous figure", "Next figure", "Less", "Let go"].map((name) =>
    html("button", { type: "button", class: "button" }, name),
  ) as [HTMLButtonElement, HTMLButtonElement, HTMLButtonElement, HTMLButtonElement];
  const ways = html("div", { class: "following-ways" }, back, on, fold, off);
  const head = html("div", { class: "following-head" }, said, ways);
  const panel = html("aside", { class: "following", "aria-label": "Chosen part", hidden: true }, head, facts);
  document.body.append(panel);

  let holding: HTMLElement[] = [];
  let folded = matchMedia(NARROW).matches;
  const unfold = (): void => {
    facts.hidden = folded || !facts.childElementCount;
    fold.hidden = !facts.childElementCount;
    fold.textContent = folded ? "More" : "Less";
    fold.setAttribute("aria-expanded", String(!folded));
    // what is scrolled to stays clear of the panel
    document.documentElement.style.scrollPaddingBottom = panel.hidden ? "" : `${panel.offsetHeight + 32}px`;
  };
  const show = (part: string | null): void => {
    holding = part === null ? [] : cards.filter((card) => holds(card, part));
    for (const card of cards) card.classList.toggle("holding", holding.includes(card));
    panel.hidden = part === null;
    back.hidden = on.hidden = holding.length < 2;
    said.replaceChildren();
    facts.replaceChildren();
    if (part !== null) {
      const one = known(part);
      const many = `${holding.length} ${holding.length === 1 ? "figure" : "figures"}`;
      const name = one.called.charAt(0).toUpperCase() + one.called.slice(1);
      said.append(html("strong", {}, apart(name)), one.role ? ", " : "", apart(one.role), ` is chosen, in ${many}`);
      const list = factList(one);
      if (list) facts.append(list);
    }
    unfold();
  };
  const go = (step: number): void => {
    const at = holding.indexOf(nearest(holding));
    const next = holding[(at + step + holding.length) % holding.length];
    next?.scrollIntoView({ block: "start" });
  };
  back.addEventListener("click", () => go(-1));
  on.addEventListener("click", () => go(1));
  fold.setAttribute("aria-controls", facts.id);
  fold.addEventListener("click", () => {
    folded = !folded;
    unfold();
  });
  off.addEventListener("click", () => chosen.set(null));
  addEventListener("keydown", (event) => event.key === "Escape" && chosen.set(null));
  chosen.listen(show);
}

/** The marks of a figure that stand for parts. */
function drawn(card: HTMLElement): SVGElement[] {
  return all<SVGElement>("svg [data-part]", card);
}

function holds(card: HTMLElement, part: string): boolean {
  return card.dataset["part"] === part || drawn(card).some((each) => each.dataset["part"] === part);
}

/** The figure that is read: the one whose top is nearest to where figures are scrolled to. */
function nearest(cards: HTMLElement[]): HTMLElement {
  const away = cards.map((card) => Math.abs(card.getBoundingClientRect().top - 72));
  return cards[away.indexOf(Math.min(...away))] as HTMLElement;
}
