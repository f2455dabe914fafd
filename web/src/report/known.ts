import { apart, html } from "../dom.js";

/** What `cutaway.views.report` writes of each part of the model, by its name. */
export interface Known {
  readonly called: string;
  readonly role: string;
  readonly facts: readonly (readonly [what: string, found: string])[];
}

type All = Readonly<Record<string, Known>>;

let read: All | null = null;

/** What is known of a part; the page's data is read when it is first asked for. */
export function known(part: string): Known {
  read ??= JSON.parse(document.getElementById("known")?.textContent ?? "{}") as All;
  return (Object.hasOwn(read, part) ? read[part] : undefined) ?? { called: called(part), role: "", facts: [] };
}

/** The facts of a part as a list of terms. */
export function factList({ facts }: Known): HTMLElement | null {
  if (!facts.length) return null;
  const list = html("dl", { class: "known" });
  for (const [what, found] of facts) {
    list.append(html("div", {}, html("dt", {}, apart(what)), html("dd", {}, apart(found))));
  }
  return list;
}

/** `a3.h1` as a person says it. */
function called(part: string): string {
  const head = /^a(\d+)\.h(\d+)$/.exec(part);
  if (head) return `head ${head[1]}.${head[2]}`;
  return part.replace(/^m(?=\d)/, "MLP ");
}
