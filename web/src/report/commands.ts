import { all } from "../dom.js";

const SHOWN = 1500;

/** Commands: a button that copies each; where the browser does not let a page, it selects it instead. */
export function markCommands(): void {
  for (const button of all(".copy")) {
    const code = button.previousElementSibling;
    if (!code) continue;
    button.hidden = false;
    button.addEventListener("click", () => {
      void copied(code.textContent ?? "").then((done) => {
        if (!done) getSelection()?.selectAllChildren(code);
        button.textContent = done ? "Copied" : "Selected";
        setTimeout(() => {
          button.textContent = "Copy";
        }, SHOWN);
      });
    });
  }
}

async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
