import type { Tree } from "../drawing.js";

/** What `GET /api/model` tells. */
export interface ModelData {
  readonly name: string;
  readonly family: string;
  readonly layers: number;
  readonly heads: number;
  /** Neurons of an MLP; 0 where single ones cannot be told apart. */
  readonly neurons: number;
  readonly context: number | null;
}

/** A token as it is shown, and whether a blank stands before it. */
export type Shown = readonly [text: string, apart: boolean];

/** A change, as the server reads it. */
export type Change =
  | { do: "ablate"; site: string; position: number | null; mode: "zero" | "mean" }
  | { do: "patch"; site: string; position: number | null; prompt: string; source_position: number | null }
  | { do: "steer"; site: string; position: number | null; strength: number; token: string | number }
  | { do: "steer"; site: string; position: number | null; strength: number; plus: string; minus: string };

export type Show = "edited" | "plain" | "difference";

/** Everything that is asked. */
export interface Question {
  readonly prompt: string;
  readonly changes: readonly Change[];
  readonly position: number | null;
  readonly head: readonly [layer: number, head: number] | null;
  readonly neurons: number | null;
  readonly target: number | null;
  readonly against: number | null;
  readonly show: Show;
}

interface Side {
  readonly logit: number;
  readonly probability: number;
  readonly rank: number;
}

/** A token that may come next, in the run without changes and in the one with them. */
export interface Next {
  readonly id: number;
  readonly text: string;
  readonly before: Side;
  readonly after: Side;
}

/** A figure as Python drew it. */
export interface FigureData {
  readonly title: string;
  readonly shows: string;
  readonly drawing: Tree;
  readonly kind?: string;
  readonly data?: unknown;
}

export type LensCell = readonly [text: string, probability: number, shade: number, changed: boolean];

export interface Neuron {
  readonly neuron: number;
  readonly share: number;
  readonly activation: number;
}

/** What `POST /api/ask` answers. */
export interface Answer {
  readonly tokens: readonly Shown[];
  readonly position: number;
  readonly head: readonly [layer: number, head: number];
  readonly changed: boolean;
  readonly next: readonly Next[];
  readonly divergence: number;
  readonly target: readonly number[];
  readonly lens: { readonly first: number; readonly sites: readonly string[]; readonly cells: readonly (readonly LensCell[])[] };
  readonly parts: FigureData;
  readonly attention: FigureData;
  readonly neurons: readonly Neuron[];
}
