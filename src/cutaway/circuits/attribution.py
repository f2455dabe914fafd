"""Edge attribution: every edge's first-order effect, from one backward pass.

To first order, switching on the edge from writer w to reader r changes the metric by

    score(w → r) = Σ_position (current_w − replacement_w) · ∂metric/∂(input of r)

which is the metric's derivative in that edge's mask (Syed et al. 2023, with the sign turned: here a
positive score says that the edge supports the metric). The gradient at a reader's input is never
made for all readers at once. For the readers of one layer:

1. one backward pass gives the gradients δ at the sites `q`, `k`, `v`, `mlp_in` of every layer and
   at the last stream: as much memory as those activations;
2. with the norm  x̂ = c(x)/s,  y = gain · x̂ + bias  (c subtracts the mean or does nothing), and
   g_r = (W_r · gain)ᵀ δ_r / s,  the gradient at the reader's input is  c(g_r) − x̂ (x̂ · g_r) / d;
3. its contraction with the changes Δ_w is one product of (reader, position · d) with
   (position · d, writer) per example.

Steps 2 and 3 cost R·W/2 · d_model multiply-adds per position, a third of a plain pass of GPT-2
small, and W + 2R/L copies of the stream for the examples at hand, which are as many as the memory
budget allows. Where the way from the stream to the site is not a plain norm and a linear layer
(latent attention, adapters, clipped projections), the gradient is pulled back by autograd instead.
The rotary key of latent attention is read by all heads together: its gradient is what the gradient
at the attention's input holds beyond the queries', keys' and values'.

A post-norm makes a head's change pass the norm's derivative first (`Change.linear`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from cutaway.circuits.batch import Batch
from cutaway.circuits.masked import Masked
from cutaway.circuits.places import picked
from cutaway.circuits.reading import Reading
from cutaway.errors import ModelError
from cutaway.model.norm import FrozenNorm, frozen
from cutaway.model.ports import Passing
from cutaway.model.run import Recorder
from cutaway.model.sites import Site
from cutaway.model.taps import Tap
from cutaway.model.tokens import Tokens

_LAST = Site("resid_final")


class _Done(Exception):  # noqa: N818
    """Ends a pass once the last stream is known."""


class Slopes:
    """One pass over a batch and the metric's gradient at everything that is read."""

    def __init__(self, batch: Batch, tokens: Tokens | None = None, taps: Sequence[Tap] = ()):
        """`tokens` (the clean prompts, when not given) are run with `taps` connected."""
        on = batch.on
        wanted = {on.readings.stream_site(reading) for reading in on.readings.by_site.values()}
        reads = Recorder(list(on.readings.by_site), gradients=True)
        layers = on.model.anatomy.layers
        # What passes a post-norm together, by the column of the first writer.
        normed = {
            on.graph.before(i): (Site("z", i), layer.o_proj)
            for i, layer in enumerate(layers) if layer.attn_post_norm is not None
        } | {
            on.graph.columns(i, "mlp").start: (Site("mlp_post", i), layers[i].down)
            for i in on.graph.alone if layers[i].mlp_post_norm is not None
        }  # fmt: skip
        keep, last = Recorder(wanted | {site for site, _ in normed.values()}), _Last(batch.end)
        ran = batch.tokens if tokens is None else tokens.to(on.model.device)
        with torch.enable_grad():
            with suppress(_Done), on.model.connected([*taps, keep, reads, last]):
                on.model.forward(ran, use_cache=False)
            assert last.stream is not None
            logits = on.model.unembed(on.model.anatomy.final_norm(last.stream[:, None]))[:, 0]
            self.values = batch.measure(logits)
            """(row,): the metric of this pass."""
            found = torch.autograd.grad(
                self.values.sum(), [*reads.kept.values(), last.stream], allow_unused=True,
                materialize_grads=True,
            )  # fmt: skip
        self.values = self.values.detach()
        kept = {site: x.detach() for site, x in keep.kept.items()}
        self.streams: Mapping[Site, Tensor] = {site: kept[site] for site in wanted}
        """The streams that readers read."""
        with torch.no_grad():
            self.totals: Mapping[int, Tensor] = {
                column: module.forward(kept[site].flatten(2))
                for column, (site, module) in normed.items()
                if module is not None
            }
            """What heads, or neurons, write before a post-norm, by the first one's column."""
        self.at: Mapping[Site, Tensor] = dict(zip(reads.kept, found[:-1], strict=True))
        """The gradient at each site that readers write to."""
        self.at_last: Float[Tensor, "row d_model"] = found[-1]
        """The gradient at the last stream, at the prompts' ends."""


class _Last:
    """The tap that makes the last stream at the ends a place for a gradient, and stops."""

    def __init__(self, end: Tensor) -> None:
        self.end = end
        self.stream: Tensor | None = None

    def wants(self, site: Site) -> bool:
        return site == _LAST

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        found = x[torch.arange(len(self.end), device=x.device), self.end]
        self.stream = found if found.requires_grad else found.detach().requires_grad_()
        raise _Done


class Attribution:
    """Contracts reader gradients with writer changes, edge by edge."""

    def __init__(self, on: Masked, *, fast: bool = True) -> None:
        """`fast=False` pulls every gradient back by autograd: slower, and the reference."""
        self.on = on
        self._norms: dict[int, FrozenNorm | None] = {}
        self._fast = fast

    def scores(
        self, batch: Batch, slopes: Slopes, columns: slice | None = None
    ) -> Float[Tensor, "row reader writer"]:
        """Each example's score of every edge whose writer is in `columns` (all, if not given).

        Zero elsewhere. The changes are the clean run's, whatever pass the slopes are of; what
        follows them (post-norms, readers) is taken at that pass.
        """
        graph = self.on.graph
        shape = (len(batch), len(graph.readers), len(graph.writers))
        found = torch.zeros(shape, device=self.on.model.device)
        size = self.rows_at_once(batch.tokens.ids.shape[1] - batch.start)
        for first in range(0, len(batch), size):
            some = slice(first, min(first + size, len(batch)))
            self._of_rows(found[some], self._changes(batch, slopes, some), batch, slopes, some)
        if columns is not None:
            outside = torch.ones(shape[2], dtype=torch.bool, device=found.device)
            outside[columns] = False
            found[:, :, outside] = 0
        return found

    @torch.no_grad()
    def _changes(self, batch: Batch, slopes: Slopes, some: slice) -> Tensor:
        """(writer, row, position, d_model): what some rows' writers change, to first order.

        One block of memory, each row's writers together, so that no product needs a copy.
        """
        width, model = batch.tokens.ids.shape[1] - batch.start, self.on.model
        shape = (some.stop - some.start, len(self.on.graph.writers), width, model.d_model)
        block = torch.empty(shape, dtype=model.dtype, device=model.device).transpose(0, 1)
        for change in batch.changes(batch.start, some):
            total = slopes.totals.get(change.columns.start)
            block[change.columns] = change.linear(
                None if total is None else total[some, batch.start :]
            )
        return block

    def rows_at_once(self, width: int) -> int:
        """How many examples fit the memory budget."""
        return max(1, self.on.memory // (2 * self.on.bytes_per_row(width)))

    def _of_rows(
        self, found: Tensor, changes: Tensor, batch: Batch, slopes: Slopes, some: slice
    ) -> None:
        """Fill in the scores of some rows; `changes` is (writer, row, position, d_model)."""
        start, graph = batch.start, self.on.graph
        places = list(picked(graph, batch.tokens.rows(some), start))
        for layer in range(graph.n_layers):
            others: Tensor | None = None
            for reading in self.on.readings.of(layer):
                reach = int(graph.reach[reading.rows.start])
                stream = slopes.streams[self.on.readings.stream_site(reading)][some, start:]
                delta = slopes.at[reading.site]
                delta = delta[some, delta.shape[1] - (batch.tokens.ids.shape[1] - start) :]
                norm = self._plain(reading)
                seen = changes[:reach]
                part = torch.stack(
                    [
                        _scored(reading, norm, at(stream), at.weighted(delta), at.along_rows(seen))
                        for at in places
                    ],
                    dim=2,
                )  # (row, reader, group, writer)
                if reading.kind in ("q", "k", "v") and graph.shared_key:
                    sums = part.sum(dim=1, keepdim=True)
                    others = sums if others is None else others + sums
                if reading.kind == "kr":
                    assert others is not None
                    part = part - others
                found[:, reading.rows, :reach] = -part.float().flatten(1, 2)
        at_end = changes[:, torch.arange(found.shape[0]), batch.end[some] - start]
        last = einsum(slopes.at_last[some], at_end, "row d, writer row d -> row writer")
        found[:, -1] = -last.float()

    def _plain(self, reading: Reading) -> FrozenNorm | None:
        """The reading's norm in closed form, when norm and projection are plain."""
        norm = reading.norm
        if not self._fast or norm is None or not reading.plain:
            return None
        if not any(hasattr(norm, name) for name in ("eps", "variance_epsilon")):
            return None  # OLMo's norm keeps its epsilon to itself
        if id(norm) not in self._norms:
            model = self.on.model
            wide = copy.deepcopy(norm).float()
            try:
                found = frozen(wide, model.d_model, model.device, torch.float32)
            except ModelError:
                found = None
            self._norms[id(norm)] = found
        return self._norms[id(norm)]


def _scored(
    reading: Reading, norm: FrozenNorm | None, stream: Tensor, delta: Tensor, changes: Tensor
) -> Tensor:
    """(row, reader, writer): reader gradients times changes, summed over the positions given."""
    pull = _pulled_back if norm is None else partial(_through, norm)
    return _dot(pull(reading, stream, delta), changes)


def _through(norm: FrozenNorm, reading: Reading, stream: Tensor, delta: Tensor) -> Tensor:
    """(reader, row, position, d_model): step 2, with the norm in closed form."""
    scale = norm.scale(stream)
    direction = (norm.centred(stream.float()) / scale).to(delta)
    weight = reading.weight()
    gained = delta if delta.ndim == 4 else delta[:, :, None]
    gained = (gained / scale[..., None]).to(delta)
    if weight is None:
        back = rearrange(gained * norm.gain.to(delta), "row p 1 d -> 1 row p d").clone()
    else:
        weight = weight.detach() * norm.gain.to(weight)
        back = einsum(gained, weight, "row p r e, r e d -> r row p d")
    if norm.centres:
        back -= back.mean(dim=-1, keepdim=True)
    along = einsum(back, direction, "r row p d, row p d -> r row p")[..., None]
    return back.addcmul_(along, direction, value=-1 / stream.shape[-1])


def _dot(gradients: Tensor, changes: Tensor) -> Tensor:
    """(row, reader, writer) from (reader, row, position, d) and (writer, row, position, d).

    A product for each row: batched ones copy a 16-bit operand that is part of a larger tensor.
    """
    rows = zip(gradients.flatten(2).unbind(1), changes.flatten(2).unbind(1), strict=True)
    return torch.stack([left @ right.T for left, right in rows])


def _pulled_back(reading: Reading, stream: Tensor, delta: Tensor) -> Tensor:
    """(reader, row, position, d_model): the gradient at each reader's own input, by autograd."""
    with torch.enable_grad():
        inputs = stream[None, None].expand(1, reading.many, -1, -1, -1).clone().requires_grad_()
        seen = reading(inputs)
        (found,) = torch.autograd.grad(seen, [inputs], grad_outputs=delta.to(seen))
    return found[0]
