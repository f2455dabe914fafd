import type { Chosen } from "./chosen.js";
import type { CircuitData } from "./circuit/data.js";
import { CircuitView } from "./circuit/view.js";

/** A view that has been put into a page. */
export interface Mounted {
  readonly element: HTMLElement;
  /** Show another size, where the view has sizes. */
  showEdges?(edges: number): void;
}

type View = (data: unknown, chosen: Chosen, resized: (edges: number) => void) => Mounted;

/** Every view by the kind that `cutaway.views.figure.Live` names; Python wrote the data for it. */
const VIEWS: Readonly<Record<string, View>> = {
  circuit: (data, chosen, resized) => new CircuitView(data as CircuitData, chosen, resized),
};

/** Make the view of this kind. */
export function mount(
  kind: string,
  data: unknown,
  chosen: Chosen,
  resized: (edges: number) => void = () => {},
): Mounted {
  const view = VIEWS[kind];
  if (!view) throw new Error(`This client has no view of the kind "${kind}".`);
  return view(data, chosen, resized);
}
