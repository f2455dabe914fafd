import type { Chosen } from "../chosen.js";
import { all } from "../dom.js";
import { mount } from "../live.js";

/** Put each figure's view in its drawing's place; the drawing stays for print. */
export function mountLive(chosen: Chosen): void {
  for (const box of all(".live")) {
    const data: unknown = JSON.parse(box.querySelector("script")?.textContent ?? "null");
    box.append(mount(box.dataset["kind"] ?? "", data, chosen).element);
    box.parentElement?.classList.add("has-live");
  }
}
