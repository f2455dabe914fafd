import type { Chosen } from "../chosen.js";
import { all } from "../dom.js";
import { mount } from "../live.js";

/** Put each figure's view beside its drawing, or in its place; then the drawing stays for print. */
export function mountLive(chosen: Chosen): void {
  for (const box of all(".live")) {
    const data: unknown = JSON.parse(box.querySelector("script")?.textContent ?? "null");
    const drawing = box.parentElement?.querySelector<SVGSVGElement>(".plot > svg") ?? null;
    box.append(mount(box.dataset["kind"] ?? "", data, { chosen, drawing }).element);
  }
}
