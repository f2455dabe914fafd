import type { Chosen } from "../chosen.js";
import { all } from "../dom.js";

/**
 * Parts that text names: pressing one chooses it. Those in figures' titles are stops of the Tab key;
 * the others are many, and the masthead's list and the figures choose the same by keyboard.
 */
export function linkMentions(chosen: Chosen): void {
  const mentions = all(".mention");
  for (const mention of mentions) {
    const part = mention.dataset["part"];
    if (part === undefined) continue;
    mention.setAttribute("role", "button");
    mention.tabIndex = mention.closest("h3") ? 0 : -1;
    mention.addEventListener("click", () => chosen.toggle(part));
    mention.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      chosen.toggle(part);
    });
  }
  const show = (part: string | null): void => {
    for (const mention of mentions) mention.setAttribute("aria-pressed", String(mention.dataset["part"] === part));
  };
  chosen.listen(show);
  show(chosen.value);
}

/** The masthead's list of parts. */
export function offerParts(chosen: Chosen): void {
  const list = document.getElementById("choose");
  if (!(list instanceof HTMLSelectElement)) return;
  list.closest("label")?.removeAttribute("hidden");
  list.addEventListener("change", () => chosen.set(list.value || null));
  chosen.listen((part) => {
    list.value = part ?? "";
  });
}
