import { Chosen } from "./chosen.js";
import { html } from "./dom.js";
import { DrawingView, type Tree } from "./drawing.js";
import { mount, type Mounted } from "./live.js";

/** Keys that mean something outside the cell as well; the others would move through the notebook. */
const SHARED = ["Tab", "Escape"];

/** The part of anywidget's model that is used here: named values shared with Python. */
export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, listener: () => void): void;
  off(event: string, listener: () => void): void;
}

/**
 * Show a widget's figure in a notebook's cell. The chosen part and the size are shared with Python in
 * both directions; gives back what ends it.
 */
export function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const chosen = new Chosen();
  const share = (name: string, value: unknown): void => {
    if (model.get(name) === value) return;
    model.set(name, value);
    model.save_changes();
  };
  const tree = model.get("drawing") as Tree | null;
  const drawn = tree ? new DrawingView(tree, chosen) : null;
  const kind = model.get("kind");
  const resized = (edges: number): void => share("size", edges);
  const view: Mounted | null = kind
    ? mount(String(kind), model.get("data"), { chosen, drawing: drawn?.drawing ?? null, resized })
    : null;
  const host = html(
    "figure",
    // JupyterLab keeps its own keys away from what has this attribute
    { class: "cutaway-widget", "data-lm-suppress-shortcuts": "true" },
    html("p", { class: "cutaway-title" }, String(model.get("title"))),
    ...[drawn, view].flatMap((part) => (part ? [part.element] : [])),
    html("figcaption", {}, String(model.get("shows"))),
  );
  host.addEventListener("keydown", (event) => {
    if (!SHARED.includes(event.key)) event.stopPropagation();
  });
  const follow = (): void => {
    const part = model.get("chosen");
    chosen.set(typeof part === "string" && part ? part : null);
  };
  const resize = (): void => {
    const size = model.get("size");
    if (typeof size === "number") view?.showEdges?.(size);
  };
  const themed = (): void => {
    host.dataset["theme"] = isDark() ? "dark" : "light";
  };
  const changes: [string, () => void][] = [["change:chosen", follow], ["change:size", resize]];
  for (const [event, listener] of changes) model.on(event, listener);
  const stop = chosen.listen((part) => share("chosen", part ?? ""));
  const system = matchMedia("(prefers-color-scheme: dark)");
  const watched = new MutationObserver(themed);
  watched.observe(document.body, { attributes: true });
  watched.observe(document.documentElement, { attributes: true });
  system.addEventListener("change", themed);
  follow();
  resize();
  themed();
  el.append(host);
  return () => {
    for (const [event, listener] of changes) model.off(event, listener);
    system.removeEventListener("change", themed);
    watched.disconnect();
    stop();
    drawn?.end();
    host.remove();
  };
}

/** The notebook's own theme where it tells one, else the system's. */
function isDark(): boolean {
  const { body, documentElement } = document;
  const told = body.dataset["jpThemeLight"];
  if (told !== undefined) return told === "false";
  const kind = body.dataset["vscodeThemeKind"];
  if (kind !== undefined) return kind.includes("dark") || kind === "vscode-high-contrast";
  if (documentElement.dataset["theme"] === "dark" || documentElement.classList.contains("dark")) return true;
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
