import { html } from "../dom.js";

const KEYS: readonly (readonly [string, string])[] = [
  ["/", "go to the prompt"],
  ["Arrows", "walk through the tokens, the lens and the maps"],
  ["Enter", "choose what you are at"],
  ["a", "ablate what is chosen"],
  ["p", "patch it from another prompt"],
  ["s", "steer the stream"],
  ["z", "take the last change back"],
  ["d", "go through with, without and difference"],
  ["?", "show this list"],
  ["Escape", "close it"],
];

/** A dialog with a heading and a way to close it. */
function dialog(name: string, ...children: (Node | string)[]): HTMLDialogElement {
  const close = html("button", { type: "button", class: "button" }, "Close");
  const id = `dialog-${name.toLowerCase().replaceAll(/\W+/g, "-")}`;
  const made = html("dialog", { class: "card", "aria-labelledby": id }, html("h2", { id }, name), ...children, html("p", { class: "closing" }, close));
  close.addEventListener("click", () => made.close());
  document.body.append(made);
  return made;
}

/** The keys, in a dialog. */
export function keysDialog(): HTMLDialogElement {
  const rows = KEYS.flatMap(([key, does]) => [html("dt", {}, html("kbd", {}, key)), html("dd", {}, does)]);
  return dialog("Keys", html("dl", { class: "keys" }, ...rows));
}

/** The experiment as Python, to copy or to keep as a file. */
export class ScriptDialog {
  private readonly text = html("pre", { tabindex: 0, "aria-label": "The script" });
  private readonly copy = html("button", { type: "button", class: "button" }, "Copy");
  private readonly file = html("a", { class: "button", download: "experiment.py" }, "Save as a file");
  private readonly made = dialog("The experiment as Python", html("p", {}, "Running it makes the same changes and prints the same numbers."), this.text, html("p", { class: "fields" }, this.copy, this.file));

  constructor() {
    this.copy.addEventListener("click", () => {
      void navigator.clipboard.writeText(this.text.textContent ?? "").then(() => (this.copy.textContent = "Copied"));
    });
  }

  open(script: string): void {
    this.text.textContent = script;
    this.copy.textContent = "Copy";
    URL.revokeObjectURL(this.file.href);
    this.file.href = URL.createObjectURL(new Blob([script], { type: "text/x-python" }));
    this.made.showModal();
  }
}
