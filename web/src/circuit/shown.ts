import type { CircuitData, CircuitEdge, CircuitNode } from "./data.js";

/** An edge with its place in the order in which edges join, from 0. */
export interface Ranked {
  readonly edge: CircuitEdge;
  readonly at: number;
}

/** The circuit of one size: which edges it has, and which parts they join. */
export class Shown {
  readonly edges: readonly Ranked[];
  private readonly used = new Set<string>();
  private readonly nodes: ReadonlyMap<string, CircuitNode>;

  constructor(data: CircuitData, stop: number) {
    const size = data.stops[stop]?.edges ?? 0;
    this.edges = data.edges.slice(0, size).map((edge, at) => ({ edge, at }));
    this.nodes = new Map(data.nodes.map((node) => [node.name, node]));
    for (const { edge } of this.edges) {
      this.used.add(edge.from);
      this.used.add(edge.to);
    }
  }

  has(part: string): boolean {
    return this.used.has(part);
  }

  /** The part of this name, if there is one. */
  node(name: string): CircuitNode | undefined {
    return this.nodes.get(name);
  }

  /** Edges into a part, and into what reads for it. */
  into(part: string): Ranked[] {
    const inputs = [part, ...(this.nodes.get(part)?.through ?? [])];
    return this.edges.filter(({ edge }) => inputs.includes(edge.to));
  }

  /** Edges out of a part. */
  outOf(part: string): Ranked[] {
    return this.edges.filter(({ edge }) => edge.from === part);
  }

  /** The parts of the circuit in the order of the drawing. */
  get parts(): CircuitNode[] {
    return [...this.nodes.values()].filter((node) => this.used.has(node.name));
  }
}
