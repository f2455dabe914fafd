"""Writes docs/sites.md, the glossary of sites and axes, from `cutaway.model.sites.KINDS`.

python docs/make_sites.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cutaway.model.sites import KINDS, Kind

OUT = Path(__file__).parent / "sites.md"

HEAD = """# Sites

<!-- Written by docs/make_sites.py; not edited by hand. -->

A **site** is a place in a decoder where a named tensor passes. It is written `kind.layer`
(`resid_post.3`), `kind.layer.index` (`head_out.9.6` is head 6 of layer 9) or, for the few that
exist once per model, just `kind` (`logits`). Layers and heads are counted from 0. The names are
the same in `keep=…`, in edits, in results, in files and in figures.

In the order in which a forward pass meets them:
"""

TAIL = """
*Index* is what a third part of the name picks out. Sites marked *inside* exist only when the
attention is computed step by step; asking for one does that, for that call, with the model's own
eager attention, and a run that asks for none keeps its fused kernels.

Not every model has every site. `resid_mid` is absent where attention and MLP read the same stream
side by side, `router` where there are no experts, `pos_embed` where positions are not an
embedding that is added; asking for one of them is an error that says why. `attn_out` and
`mlp_out` are what is really added to the residual stream: after a post-norm and a residual
multiplier, where a family has them.

## Axes

| axis | length |
| --- | --- |
| `batch` | prompts |
| `position` | tokens of the longest prompt, padding included |
| `query_position`, `key_position` | the same, as the reading and the read side of attention |
| `head` | query heads |
| `kv_head` | key-value heads; several query heads share one in grouped attention |
| `d_model` | width of the residual stream |
| `d_head` | width of one head |
| `neuron` | width of the MLP |
| `expert` | experts of a mixture |
| `vocab` | tokens that the model can predict |

## What is proven

Every model is checked when it is opened, on a short prompt beside its own beginning left-padded
in the same batch. Errors are relative, by norm and by largest magnitude; a model that fails is
refused with the site and both numbers.

1. The logits with every adapter connected are those of the bare model, bit for bit on a CPU.
2. With the inside of attention computed step by step they are the same to rounding.
3. `resid_pre + attn_out = resid_mid`, `resid_pre + attn_out + mlp_out = resid_post`, and each
   layer's `resid_post` is what the next one reads.
4. The sum of `head_out` over heads, with the projection's bias and through the post-norm where
   there is one, is `attn_out`.
5. `pattern · v = z`; no head attends ahead or to padding; the weights of a query sum to at most
   one.
6. Unembedding `final_norm` gives `logits`.
7. A left-padded prompt gives the logits of the same prompt alone.
8. A change at each kind of site changes the logits; one of a head's `q`, `k` or `v` changes the
   `z` of that head, or of the heads that share it, and of no other.

`model.verification` keeps the numbers, and `cutaway check MODEL` prints them.
"""


def row(kind: Kind) -> str:
    """One kind as a row of the table."""
    name = f"{kind.name}.LAYER" if kind.per_layer else kind.name
    inside = " *(inside)*" if kind.interior else ""
    index = f"`{kind.indexed}`" if kind.indexed else ""
    return f"| `{name}` | {' '.join(kind.axes)} | {index} | {kind.meaning}{inside} |"


def page() -> Iterator[str]:
    """The page's parts."""
    yield HEAD
    yield "| site | axes | index | meaning |"
    yield "| --- | --- | --- | --- |"
    yield from map(row, KINDS.values())
    yield TAIL


def text() -> str:
    """The whole page."""
    return "\n".join(page()).rstrip() + "\n"


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
