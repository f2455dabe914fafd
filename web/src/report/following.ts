import type { Chosen } from "../chosen.js";
import { all, html } from "../dom.js";

/**
 * What is chosen anywhere, shown everywhere: the figures that hold it are outlined, and a bar at the
 * foot of the page goes from one to the next.
 */
export function followChosen(chosen: Chosen): void {
  const cards = all(".card").filter((card) => card.dataset["part"] || card.querySelector("[data-part]"));
  if (!cards.length) return;
  const said = html("span", { role: "status" });
  const [back, on, off] = ["Previous figure", "Next figure", "Let go"].map((name) =>
    html("button", { type: "button", class: "button" }, name),
  ) as [HTMLButtonElement, HTMLButtonElement, HTMLButtonElement];
  const bar = html("aside", { class: "following", "aria-label": "Chosen part", hidden: true }, said, back, on, off);
  document.body.append(bar);

  let holding: HTMLElement[] = [];
  const show = (part: string | null): void => {
    holding = part === null ? [] : cards.filter((card) => holds(card, part));
    for (const card of cards) card.classList.toggle("holding", holding.includes(card));
    bar.hidden = part === null;
    const many = `${holding.length} ${holding.length === 1 ? "figure" : "figures"}`;
    said.textContent = part === null ? "" : `${called(part)} is chosen, in ${many}`;
    back.hidden = on.hidden = holding.length < 2;
  };
  const go = (step: number): void => {
    const at = holding.indexOf(nearest(holding));
    const next = holding[(at + step + holding.length) % holding.length];
    next?.scrollIntoView({ block: "start" });
  };
  back.addEventListener("click", () => go(-1));
  on.addEventListener("click", () => go(1));
  off.addEventListener("click", () => chosen.set(null));
  addEventListener("keydown", (event) => event.key === "Escape" && chosen.set(null));
  chosen.listen(show);
}

/** `a3.h1` as a person says it. */
function called(part: string): string {
  const head = /^a(\d+)\.h(\d+)$/.exec(part);
  if (head) return `Head ${head[1]}.${head[2]}`;
  return part.replace(/^m(?=\d)/, "MLP ");
}

function holds(card: HTMLElement, part: string): boolean {
  return card.dataset["part"] === part || all<SVGElement>("[data-part]", card).some((each) => each.dataset["part"] === part);
}

/** The figure that is read: the one whose top is nearest to where figures are scrolled to. */
function nearest(cards: HTMLElement[]): HTMLElement {
  const away = cards.map((card) => Math.abs(card.getBoundingClientRect().top - 72));
  return cards[away.indexOf(Math.min(...away))] as HTMLElement;
}
