import type { Answer, Change } from "./data.js";

/** A number with a true minus sign. */
export function number(value: number, digits = 2, sign = false): string {
  const written = Math.abs(value).toFixed(digits);
  if (Number(written) === 0) return written;
  return `${value < 0 ? "−" : sign ? "+" : ""}${written}`;
}

/** A probability as a percentage. */
export function percent(share: number): string {
  return `${number(100 * share, share < 0.0995 ? 2 : 1)} %`;
}

/** The site of a part that was chosen: `a2.h1`, `m0`, `m0.n17`, or the stream after a reading, `s3`. */
export function siteOf(part: string): string {
  const [, kind, layer, index] = /^([ams])(\d+)(?:\.[hn](\d+))?$/.exec(part) ?? [];
  if (kind === "a") return `z.${layer}.${index}`;
  if (kind === "m") return index === undefined ? `mlp_out.${layer}` : `mlp_post.${layer}.${index}`;
  return streamSite(Number(layer));
}

/** The stream as the lens reads it: 0 enters the first layer, n leaves layer n − 1. */
export function streamSite(reading: number): string {
  return reading === 0 ? "resid_pre.0" : `resid_post.${reading - 1}`;
}

/** A site as a person says it. */
export function called(site: string): string {
  const [kind, layer, index] = site.split(".");
  switch (kind) {
    case "z":
      return `Head ${layer}.${index}`;
    case "mlp_out":
      return `MLP ${layer}`;
    case "mlp_post":
      return `Neuron ${layer}.${index}`;
    case "resid_pre":
      return "The stream into layer 0";
    default:
      return `The stream after layer ${layer}`;
  }
}

/** Where a change holds. */
export function place(position: number | null, tokens: Answer["tokens"]): string {
  if (position === null) return "everywhere";
  return `at “${tokens[position]?.[0] ?? "?"}” (${position})`;
}

/** A change in a sentence, without where it holds. */
export function told(change: Change): string {
  const site = called(change.site);
  if (change.do === "ablate") return `${site} set to ${change.mode === "zero" ? "zero" : "its mean"}`;
  if (change.do === "patch") return `${site} from “${change.prompt}”`;
  if ("token" in change) return `${site} steered towards “${change.token}”`;
  return `${site} steered from “${change.minus}” to “${change.plus}”`;
}
