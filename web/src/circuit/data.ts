/** What `cutaway.views.circuit` writes for this view: places, ways and words are made there. */

export type NodeKind = "input" | "head" | "kv" | "mlp" | "neuron" | "logits";

/** A text, its number as written, and the number as a share of the strongest (−1 to 1). */
export type Reading = readonly [text: string, written: string, share: number];

export interface CircuitNode {
  readonly name: string;
  readonly kind: NodeKind;
  readonly short: string;
  readonly layer: number | null;
  readonly index: number | null;
  readonly role: string;
  readonly box: readonly [x: number, y: number, width: number, height: number];
  readonly attends: readonly Reading[];
  readonly writes: readonly Reading[];
  /** What reads for it: a head's shared keys and values, a neuron's MLP. */
  readonly through: readonly string[];
}

export interface CircuitEdge {
  readonly from: string;
  readonly to: string;
  readonly port: string;
  readonly d: string;
  readonly width: number;
  readonly strength: number;
  readonly dashes: string;
  readonly score: string;
  readonly inclusion: string;
}

/** A size that can be chosen, and where it stands on the curve. */
export interface Stop {
  readonly edges: number;
  readonly x: number;
  readonly y: number;
  /** Its edges, its faithfulness, and that of random circuits, in words. */
  readonly said: readonly [edges: string, faithfulness: string, controls: string];
}

export interface Curve {
  readonly width: number;
  readonly height: number;
  readonly zero: number;
  readonly one: number;
  readonly line: string;
  readonly band: string;
  readonly ends: readonly [string, string];
  readonly controls: readonly (readonly [x: number, y: number])[];
}

export interface CircuitData {
  readonly title: string;
  readonly score: string;
  readonly attends: string;
  readonly writes: string;
  readonly width: number;
  readonly height: number;
  readonly labelled: boolean;
  readonly sparse: boolean;
  /** The place in `stops` of the size shown first. */
  readonly first: number;
  /** The largest score, as written. */
  readonly most: string;
  readonly headings: readonly (readonly [x: number, text: string])[];
  readonly nodes: readonly CircuitNode[];
  /** In the order in which they join. */
  readonly edges: readonly CircuitEdge[];
  readonly curve: Curve;
  readonly stops: readonly Stop[];
}

/** What a part is called where there is room. */
export function fullName(node: CircuitNode): string {
  switch (node.kind) {
    case "head":
      return `Head ${node.short}`;
    case "mlp":
      return `MLP ${node.layer ?? ""}`;
    case "neuron":
      return `Neuron ${node.index ?? ""} of MLP ${node.layer ?? ""}`;
    case "kv":
      return node.index === null
        ? `The key that all heads of layer ${node.layer ?? ""} share`
        : `Keys and values ${node.layer ?? ""}.${node.index}`;
    case "input":
      return "The input";
    case "logits":
      return "The logits";
  }
}
