import type { CircuitNode } from "./data.js";

export type Direction = "left" | "right" | "up" | "down";

const ARROWS: Readonly<Record<string, Direction>> = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
};

/** The direction of an arrow key. */
export function direction(key: string): Direction | undefined {
  return ARROWS[key];
}

/**
 * The part to go to from another: the nearest on that side, with what lies aside counted double.
 * The tall bars at both ends are level with everything.
 */
export function neighbour(
  from: CircuitNode,
  side: Direction,
  parts: readonly CircuitNode[],
): CircuitNode | undefined {
  const across = side === "left" || side === "right";
  const sign = side === "right" || side === "down" ? 1 : -1;
  let best: CircuitNode | undefined;
  let least = Infinity;
  for (const part of parts) {
    if (part === from) continue;
    const [dx, dy] = away(from, part);
    const along = sign * (across ? dx : dy);
    const aside = Math.abs(across ? dy : dx);
    if (along <= 1 || (!across && (isBar(part) || aside > along * 2))) continue;
    const distance = along + 2 * aside;
    if (distance < least) [best, least] = [part, distance];
  }
  return best;
}

function away(from: CircuitNode, to: CircuitNode): [number, number] {
  const level = isBar(from) || isBar(to);
  const [ax, ay, aw, ah] = from.box;
  const [bx, by, bw, bh] = to.box;
  return [bx + bw / 2 - ax - aw / 2, level ? 0 : by + bh / 2 - ay - ah / 2];
}

function isBar(node: CircuitNode): boolean {
  return node.kind === "input" || node.kind === "logits";
}
