"""Masked forwards in short, and path patching with plain edits to hold them against."""

import numpy as np
import torch

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import Edge, Masked, Replacement, Writer, Written
from cutaway.circuits.graph import REST
from cutaway.model import Edit, Run, replace


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def logits(
    on: Masked, pairs: Behaviour, kept: np.ndarray, instead: Written | None = None
) -> torch.Tensor:
    """(mask, row, vocab) for a stack of masks."""
    if instead is None:
        replacement = Replacement(on.model, pairs, split=on.graph.alone)
        instead = replacement(slice(0, len(pairs)))
    mask = torch.as_tensor(kept, dtype=torch.float32)
    return on.end_logits(pairs.clean, mask, instead, pairs.clean.labels["end"])


def value(pairs: Behaviour, logits: torch.Tensor) -> np.ndarray:
    return METRICS["logit_diff"](logits, pairs).double().numpy()


def some_edges(on: Masked) -> list[Edge]:
    """An edge into every kind of reader, at every label, from every kind of writer."""
    seen: dict[tuple[str, str, str | None], Edge] = {}
    for edge in on.graph.edges:
        if edge.reader.layer in (1, None):
            seen[edge.writer.kind, edge.reader.kind, edge.reader.at] = edge
    return [edge for key, edge in seen.items() if key[1] != "kr"]


def by_hand(on: Masked, pairs: Behaviour, edge: Edge, *, denoise: bool = False) -> np.ndarray:
    """Path patching with whole forward passes and plain edits: two runs, hold, send, receive."""
    model, reader = on.model, edge.reader
    at = {"logits": "resid_final", "mlp": f"mlp_in.{reader.layer}"}.get(
        reader.kind, f"{reader.kind}.{reader.layer}.{reader.index}"
    )
    read = at.rsplit(".", 1)[0] if at.count(".") == 2 else at
    written = [f"{kind}.{i}" for kind in ("z", "mlp_out") for i in range(model.n_layers)]
    keep = ["resid_pre.0", *written, *(f"mlp_post.{i}" for i in on.graph.alone), read]
    clean, corrupt = (model.run(side, keep=keep) for side in (pairs.clean, pairs.corrupt))
    base, source = (corrupt, clean) if denoise else (clean, corrupt)
    split = edge.writer.kind == "neuron" or edge.writer.rest
    free = f"mlp_out.{edge.writer.layer}" if split else None
    held = [replace(name, from_=base) for name in written if name != free]
    edits = [*held, *sent(on, edge.writer, base, source)]
    seen = model.run(base.tokens, edits=edits, keep=[read])
    run = model.run(base.tokens, edits=received(pairs, at, seen, base, reader.at))
    return value(pairs, pairs.end_logits(run.logits))


def sent(on: Masked, writer: Writer, base: Run, source: Run) -> list[Edit]:
    """The edits by which one writer writes what it writes in `source`."""
    layer = writer.layer
    if writer.kind == "input":
        return [replace("resid_pre.0", from_=source)]
    if writer.kind == "head":
        return [replace(f"z.{layer}.{writer.head}", from_=source)]
    if writer.kind == "neuron":
        return [
            replace(f"mlp_post.{layer}", from_=base),
            replace(f"mlp_post.{layer}.{writer.neuron}", from_=source),
        ]
    if writer.rest:
        assert layer is not None
        kept = [replace(f"mlp_post.{layer}.{i}", from_=base) for i in on.graph.alone[layer]]
        return [replace(f"mlp_post.{layer}", from_=source), *kept]
    return [replace(f"mlp_out.{layer}", from_=source)]


def received(
    pairs: Behaviour, at: str, seen: Run, base: Run, label: str | None
) -> list[Edit]:  # fmt: skip
    """The edits by which a site holds what it holds in `seen`, at a label's positions."""
    if label not in (None, REST):
        return [replace(at, from_=seen, position=label)]
    back = [] if label is None else pairs.labels
    return [replace(at, from_=seen), *(replace(at, from_=base, position=name) for name in back)]
