import { all } from "../dom.js";

const SHOWN = 1500;

/** Commands: a button that copies each, where the browser lets a page. */
export function markCommands(): void {
  if (!navigator.clipboard) return;
  for (const button of all(".copy")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      void navigator.clipboard.writeText(button.previousElementSibling?.textContent ?? "").then(() => {
        button.textContent = "Copied";
        setTimeout(() => {
          button.textContent = "Copy";
        }, SHOWN);
      });
    });
  }
}
