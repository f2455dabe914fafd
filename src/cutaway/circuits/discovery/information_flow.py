"""Information-flow routes: what each reader's stream is made of (Ferrando & Voita 2024).

arXiv:2403.00824, with the proximities of ALTI (Ferrando et al. 2022, arXiv:2203.04212). It looks at
the clean prompts alone: no contrast, no metric, no gradient, one forward pass.

1. The stream x that a reader reads at a position is the sum of what earlier writers added there.
   The share of writer w, which added u, is how much nearer u brings to x:
   c(w) = max(0, ‖x‖₁ − ‖x − u‖₁), over its sum over all writers.
2. From the logits at the prompt's end downwards: where a reader is reached, every writer whose
   share is above `tau` is reached at that position. A reached MLP reads at its position. A reached
   head reads its query there, and its keys and values wherever its share times its attention is
   above tau.
3. The score of an edge is the share of its writer, where it is above tau, averaged over the
   positions at which its reader is reached. With `tau` above 0, the edges that score above 0 are
   the paper's graph, with its positions put together.

Deviations: shares are taken in the whole stream that is read, each writer against the others, and
not block by block with the stream before as one part: so edges are those of this graph. A head's
share is divided over positions by its attention, not by the proximity of each position's part. In
the paper queries and keys are no part of a route; here they are inputs of a head like its values.
Biases of output projections are nobody's. A head's part of a post-norm is taken at its scale.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cutaway.circuits.batch import Batch
from cutaway.circuits.discovery.setting import Setting, Step
from cutaway.circuits.graph import CircuitError, Reader, led_to
from cutaway.circuits.writing import Change, all_changes
from cutaway.model.norm import frozen
from cutaway.model.run import Run
from cutaway.model.sites import Site


def information_flow(setting: Setting, *, tau: float = 0.0) -> np.ndarray:
    """(edge, example)."""
    if not 0 <= tau < 1:
        raise CircuitError(f"tau is the least share, from 0 to below 1; found {tau!r}.")

    def scores(batch: Batch, _: Step) -> Tensor:
        return _Flow(batch, tau).scores()

    return setting.over_batches(scores)


class _Flow:
    """One batch, from its logits downwards."""

    def __init__(self, batch: Batch, tau: float) -> None:
        self.batch, self.on, self.graph, self.tau = batch, batch.on, batch.on.graph, tau
        model = batch.on.model
        streams = {self.on.readings.stream_site(one) for one in self.on.readings.by_site.values()}
        patterns = [Site("pattern", layer) for layer in range(model.n_layers)]
        self.run: Run = model.run(batch.tokens, keep=[*streams, *patterns])
        nothing = batch.clean.map(torch.zeros_like)
        changes = all_changes(model, self.graph, batch.clean, nothing)
        with torch.no_grad():
            self.added = torch.cat([self._added(change) for change in changes])
        """(writer, row, position, d_model): what each writer added to the stream."""
        rows, width = batch.tokens.ids.shape
        self.best = torch.zeros(len(self.graph.writers), rows, width, device=model.device)
        """Each writer's largest share above tau in a reader that is reached at the position."""

    def scores(self) -> Float[Tensor, "row reader writer"]:
        graph, rows = self.graph, len(self.batch)
        found = torch.zeros(
            rows, len(graph.readers), len(graph.writers), device=self.best.device
        )  # fmt: skip
        known: dict[tuple[Site | None, int], Tensor] = {}
        for row in reversed(range(len(graph.readers))):
            reader, reach = graph.readers[row], int(graph.reach[row])
            site = self._stream_of(row)
            if (site, reach) not in known:
                known = {(site, reach): self._shares(site, reach)}
            shares, reached = known[site, reach], self._reached(reader)
            taken = shares * reached
            self.best[:reach] = torch.maximum(self.best[:reach], taken)
            many = reached.sum(dim=1).clamp(min=1)
            found[:, row, :reach] = (taken.sum(dim=2) / many).T
        return found

    def _stream_of(self, row: int) -> Site | None:
        """The stream that a reader reads; None for the last."""
        if self.graph.readers[row].layer is None:
            return None
        (reading,) = (
            one
            for one in self.on.readings.by_site.values()
            if row in range(*one.rows.indices(10**9))
        )
        return self.on.readings.stream_site(reading)

    def _shares(self, site: Site | None, reach: int) -> Float[Tensor, "writer row position"]:
        """Step 1, for the readers of one stream; shares of tau or less are 0."""
        stream = (self.batch.last if site is None else self.run[site]).float()
        whole = stream.abs().sum(dim=-1)
        nearer = torch.stack([
            (whole - (stream - one).abs().sum(dim=-1)).clamp(min=0) for one in self.added[:reach]
        ])  # fmt: skip
        share = nearer / nearer.sum(dim=0).clamp(min=1e-30)
        return torch.where(share > self.tau, share, 0.0)

    def _reached(self, reader: Reader) -> Bool[Tensor, "row position"]:
        """Step 2: where a reader is read for the end."""
        if reader.layer is None:
            reached = torch.zeros_like(self.best[0], dtype=torch.bool)
            reached[torch.arange(len(reached)), self.batch.end] = True
            return reached
        columns = led_to(self.graph, reader)
        if reader.kind in ("q", "mlp"):
            return (self.best[columns] > 0).any(dim=0)
        heads = [column - self.graph.before(reader.layer) for column in columns]
        pattern = self.run[Site("pattern", reader.layer)][:, heads].float()
        carried = self.best[columns].transpose(0, 1)[..., None] * pattern
        return (carried > self.tau).flatten(1, 2).any(dim=1)

    def _added(self, change: Change) -> Tensor:
        """(writer, row, position, d_model) of one layer's heads, one MLP, or the input."""
        added = -change.values[0].float()
        if change.norm is None:
            return added
        assert change.total is not None
        wide = copy.deepcopy(change.norm).float()
        model = self.on.model
        norm = frozen(wide, model.d_model, model.device, torch.float32)
        return change.scale * norm.gain * norm.centred(added) / norm.scale(change.total[0])
