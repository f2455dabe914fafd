import type { Chosen } from "./chosen.js";
import type { CircuitData } from "./circuit/data.js";
import { CircuitView } from "./circuit/view.js";
import { LooksView, type LooksData } from "./looks.js";

/** A view that has been put into a page. */
export interface Mounted {
  readonly element: HTMLElement;
  /** Show another size, where the view has sizes. */
  showEdges?(edges: number): void;
}

/** What a view stands in. */
export interface Around {
  /** The part of the model that is chosen, here and elsewhere. */
  readonly chosen: Chosen;
  /** The figure's drawing. */
  readonly drawing: SVGSVGElement | null;
  /** Called with the number of edges when another size is shown. */
  readonly resized?: (edges: number) => void;
}

type View = (data: unknown, around: Around) => Mounted;

/** Every view by the kind that `cutaway.views.figure.Live` names; Python wrote the data for it. */
const VIEWS: Readonly<Record<string, View>> = {
  circuit: (data, { chosen, resized }) => new CircuitView(data as CircuitData, chosen, resized),
  attention: (data, { drawing }) => new LooksView(data as LooksData, drawing),
};

/** Make the view of this kind. */
export function mount(kind: string, data: unknown, around: Around): Mounted {
  const view = VIEWS[kind];
  if (!view) throw new Error(`This client has no view of the kind "${kind}".`);
  return view(data, around);
}
