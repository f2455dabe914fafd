"""Some examples of a behaviour, ready for their edges to be switched.

A batch holds the clean run's writers and last stream, what replaces the writers, and the metric. It
gives the metric's two ends without another pass: with every edge on it is the clean run's, and with
every edge off the logits read the last stream with every writer's change added.

Where the replacement is the pair's own corrupt prompt, nothing differs before the first token in
which the two prompts do; `start` is that position, and no method looks before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.circuits.graph import CircuitError
from cutaway.circuits.masked import Masked, Resumed
from cutaway.circuits.writing import Change, all_changes
from cutaway.circuits.written import Replacement, Written, sites, written
from cutaway.model.resume import probed, run_base, run_streams
from cutaway.model.sites import Site


class Batch:
    """One batch of examples under one kind of ablation."""

    def __init__(
        self, on: Masked, rows: Behaviour, where: slice, metric: Metric, replacement: Replacement
    ) -> None:
        """Runs the clean prompts once, and the replacement's once where it has any."""
        self.on, self.rows, self.where, self.metric = on, rows, where, metric
        self.tokens = on.model.checked(rows.clean)
        self.end = self.tokens.labels["end"]
        split = on.graph.alone
        run = run_streams(on.model, self.tokens, sites(on.model, split))
        self.clean: Written = written(on.model, run, split)
        """What the clean run's writers write."""
        self.last: Tensor = run[Site("resid_final")]
        """(row, position, d_model): the clean run's last stream."""
        self.replacement: Written = replacement(where)
        """What takes the writers' place."""
        self.start = self._start() if replacement.ablation == "counterfactual" else 0
        self._check_finite()
        clean = self.on_logits()
        self.reference = clean if metric.needs_reference else None
        self.ends: tuple[np.ndarray, np.ndarray] = (
            self.numbers(self.measure(clean)),
            self.numbers(self.measure(self.off_logits())),
        )
        """(row,) twice: the metric with every edge on, and with every edge off."""

    def __len__(self) -> int:
        return len(self.rows)

    def measure(self, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, " row"]:
        """The metric of logits at the prompts' ends."""
        return self.metric(logits, self.rows, reference=self.reference)

    def values(
        self, kept: Float[Tensor, "mask reader writer"], layer: int | None = 0
    ) -> np.ndarray:
        """(mask, row): the metric under masks whose readers before `layer` are all on.

        None says that only edges into the logits are off. Passes are taken up at that layer and at
        `start`, from a clean run that is made once; whole where the model cannot be taken up.
        """
        first = self.on.model.n_layers - 1 if layer is None else layer
        taken = None
        if probed(self.on.model)[1] is None and (first or (self.start and len(kept) > 1)):
            taken = replace(self._resumed, layer=first)
        logits = self.on.end_logits(self.tokens, kept, self.replacement, self.end, taken)
        return np.stack([self.numbers(self.measure(one)) for one in logits])

    @cached_property
    def _resumed(self) -> Resumed:
        model = self.on.model
        streams = [Site("resid_pre", layer) for layer in range(1, model.n_layers)]
        base = run_base(
            model, self.tokens, [*sites(model, self.on.graph.alone), *streams], logits=False
        )
        rows = torch.arange(len(self))
        return Resumed(base=base, written=self.clean, rows=rows, layer=0, start=self.start)

    def changes(self, start: int = 0, rows: slice = slice(None)) -> Iterator[Change]:
        """Each writer's replacement less what it writes in the clean run, from a position on."""
        clean, other = (side.rows(rows).after(start) for side in (self.clean, self.replacement))
        return all_changes(self.on.model, self.on.graph, clean, other)

    def on_logits(self) -> Float[Tensor, "row vocab"]:
        """The clean run's logits at the prompts' ends."""
        return self.logits(self._at_end(self.last))

    def off_logits(self) -> Float[Tensor, "row vocab"]:
        """The logits at the prompts' ends with every edge off."""
        stream = self._at_end(self.last)[None, None]
        pick = torch.arange(len(self), device=stream.device)
        clean, other = (
            side.map(lambda x: x[pick, self.end][:, None] if x.shape[1] > 1 else x)
            for side in (self.clean, _rows_too(self.replacement, len(self)))
        )
        share = torch.ones(1, 1, 1, device=stream.device, dtype=stream.dtype)
        with torch.no_grad():
            for change in all_changes(self.on.model, self.on.graph, clean, other):
                width = change.columns.stop - change.columns.start
                stream = change.added(stream[:, :, :, None], share.expand(1, 1, width))[:, :, :, 0]
        return self.logits(stream[0, 0])

    def _at_end(self, stream: Tensor) -> Tensor:
        return stream[torch.arange(len(self), device=stream.device), self.end]

    def logits(self, last: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
        """What the model makes of a last stream at the ends."""
        with torch.no_grad():
            return self.on.model.unembed(self.on.model.anatomy.final_norm(last[:, None]))[:, 0]

    def _start(self) -> int:
        differs = (self.rows.clean.ids != self.rows.corrupt.ids) & self.rows.clean.mask
        found = differs.any(dim=0).nonzero()
        return int(found[0]) if len(found) else 0

    def numbers(self, values: Float[Tensor, " row"]) -> np.ndarray:
        """The metric's values, checked to be finite."""
        found = values.detach().double().cpu().numpy()
        if not np.isfinite(found).all():
            row = self.where.start + int(np.argmin(np.isfinite(found)))
            raise CircuitError(
                f"The metric {self.metric.name!r} of example {row} is not finite (NaN or "
                "infinity); open the model in float32, or choose another ablation."
            )
        return found

    def _check_finite(self) -> None:
        for x in (*self.clean.tensors(), self.last):
            bad = ~torch.isfinite(x).flatten(2).all(dim=2) & self.tokens.mask
            if bool(bad.any()):
                row = self.where.start + int(bad.any(dim=1).nonzero()[0])
                raise CircuitError(
                    f"The clean prompt {row} gives numbers that are not finite (NaN or infinity), "
                    "so its edges cannot be measured; open the model in float32."
                )


def _rows_too(one: Written, rows: int) -> Written:
    """Rows of its own for each tensor that serves all rows but not all positions."""
    return one.map(lambda x: x.expand(rows, *x.shape[1:]) if x.shape[1] > 1 else x)
