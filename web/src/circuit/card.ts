import { apart, html } from "../dom.js";
import { fullName, type CircuitData, type CircuitNode, type Reading } from "./data.js";
import type { Ranked, Shown } from "./shown.js";

const [LISTED, FIRST, COLUMN] = [8, 15, 5];

/** What the card does when one of its edges is pointed at, left, or followed. */
export interface EdgeActions {
  point(at: number | null): void;
  follow(part: string): void;
}

/** What a card says when nothing is looked at: the first edges, and how to read the others. */
export function emptyCard(shown: Shown, actions: EdgeActions): HTMLElement[] {
  const first = shown.edges.slice(0, FIRST);
  const columns: HTMLElement[] = [];
  for (let at = 0; at < first.length; at += COLUMN) {
    const rows = first.slice(at, at + COLUMN).map((ranked) => {
      const { from, to, port } = ranked.edge;
      const way = `${called(shown, from)} → ${called(shown, to)}`;
      return wayRow(ranked, way, port, to, actions);
    });
    columns.push(html("ul", {}, ...rows));
  }
  const hint = "Point at a part or an edge to read it. Arrow keys go from part to part, Enter keeps one chosen, + and − change the size.";
  return [
    html("p", { class: "circuit-head" }, html("strong", {}, "First edges")),
    html("div", { class: "circuit-columns" }, ...columns),
    html("p", { class: "circuit-hint" }, hint),
  ];
}

/** Everything known of a part: what it attends to, what it writes, and its edges. */
export function nodeCard(data: CircuitData, shown: Shown, node: CircuitNode, actions: EdgeActions): HTMLElement[] {
  const into = shown.into(node.name);
  const out = shown.outOf(node.name);
  const columns = [
    readings(data.attends, node.attends),
    readings(data.writes, node.writes),
    edges("reads from", into, shown, (ranked) => ranked.edge.from, actions),
    edges("is read by", out, shown, (ranked) => ranked.edge.to, actions),
  ].filter((column) => column !== null);
  const head = html("p", { class: "circuit-head" }, html("strong", {}, fullName(node)));
  if (node.role) head.append(" ", apart(node.role));
  return [head, html("div", { class: "circuit-columns" }, ...columns)];
}

/** What is known of one edge. */
export function edgeCard(data: CircuitData, shown: Shown, { edge, at }: Ranked): HTMLElement[] {
  const facts: [string, string][] = [
    [data.score, `${edge.score}, ${edge.dashes ? "works against" : "supports"}`],
    ["joins as number", String(at + 1)],
  ];
  if (edge.port) facts.unshift(["into", input(edge.port)]);
  if (edge.inclusion) facts.push(["in the circuit, over resampled prompts", edge.inclusion]);
  const list = html("dl", { class: "circuit-facts" });
  for (const [name, value] of facts) {
    list.append(html("div", {}, html("dt", {}, apart(name)), html("dd", {}, apart(value))));
  }
  const title = `${called(shown, edge.from)} → ${called(shown, edge.to)}`;
  return [html("p", { class: "circuit-head" }, html("strong", {}, apart(title))), list];
}

/** A part in one line, for those who hear the page. */
export function inWords(data: CircuitData, shown: Shown, node: CircuitNode): string {
  const first = (name: string, [top]: readonly Reading[]): string => (top ? `, ${name} ${top[0]} ${top[1]}` : "");
  const role = node.role ? `, ${node.role}` : "";
  const counts = `${shown.into(node.name).length} edges in, ${shown.outOf(node.name).length} out`;
  const name = node.kind === "mlp" ? `${node.short}, ${fullName(node)}` : fullName(node);
  return `${name}${role}${first(data.attends, node.attends)}${first(data.writes, node.writes)}; ${counts}`;
}

/** `q at S2` in words. */
function input(port: string): string {
  const [, kind = "", place = ""] = /^(q|k|v|kr)?(?: ?at (.+))?$/.exec(port) ?? ["", port];
  const words = [PORTS[kind] ?? kind, place && `at ${place}`];
  return words.filter(Boolean).join(" ");
}

const PORTS: Readonly<Record<string, string>> = {
  q: "the query",
  k: "the key",
  v: "the value",
  kr: "the rotary key",
};

function called(shown: Shown, name: string): string {
  return shown.node(name)?.short ?? name;
}

function readings(title: string, list: readonly Reading[]): HTMLElement | null {
  if (!list.length) return null;
  const rows = list.slice(0, LISTED).map(([text, written, share]) => {
    const bar = html("span", { class: `circuit-bar ${share < 0 ? "negative" : "positive"}` });
    bar.style.width = `${Math.max(2, Math.abs(share) * 100)}%`;
    return html(
      "li",
      {},
      html("span", { class: "circuit-text" }, apart(text)),
      html("span", { class: "circuit-number" }, written),
      html("span", { class: "circuit-track", "aria-hidden": "true" }, bar),
    );
  });
  return html("div", {}, html("p", { class: "circuit-over" }, apart(title)), html("ul", { "aria-label": title }, ...rows));
}

function edges(
  title: string,
  ranked: Ranked[],
  shown: Shown,
  other: (ranked: Ranked) => string,
  actions: EdgeActions,
): HTMLElement | null {
  if (!ranked.length) return null;
  const rows = ranked
    .slice(0, LISTED)
    .map((one) => wayRow(one, called(shown, other(one)), one.edge.port, other(one), actions));
  const more = ranked.length - rows.length;
  if (more > 0) rows.push(html("li", { class: "circuit-more" }, `and ${more} more`));
  return html("div", {}, html("p", { class: "circuit-over" }, title), html("ul", { "aria-label": title }, ...rows));
}

/** An edge in a list: pointing lights it, pressing goes to a part of it. */
function wayRow(ranked: Ranked, way: string, port: string, part: string, actions: EdgeActions): HTMLElement {
  const row = html(
    "button",
    { type: "button", class: `circuit-way ${ranked.edge.dashes ? "negative" : "positive"}` },
    html("span", { class: "circuit-text" }, apart(way), port ? ` (${port})` : ""),
    html("span", { class: "circuit-number" }, ranked.edge.score),
  );
  for (const name of ["pointerenter", "focus"]) row.addEventListener(name, () => actions.point(ranked.at));
  for (const name of ["pointerleave", "blur"]) row.addEventListener(name, () => actions.point(null));
  row.addEventListener("click", () => actions.follow(part));
  return html("li", {}, row);
}
