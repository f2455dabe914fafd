"""Running a plan: exactly the plain way's numbers, for a fraction of the work.

For each batch of examples:

1. run the base prompts once, keeping the streams that edits are added to and the cache of keys and
   values, and the prompts that values come from; neither needs its logits but at `end`;
2. run the chunks (`chunks`), each as a wave from its first layer to the last. A cell's edit is
   followed by hand to the stream it changes (`streams`); its prompts join the pass at that place,
   and `model.resume` runs the model's own layers over all that have joined so far, at the positions
   from the chunk's start on only;
3. the last layer's MLP and the final norm run at `end` only, and a metric that is linear in the
   logits reads its own tokens' logits only.

When memory runs out all the same, the chunk is halved and goes on. Results do not depend on the
limits but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.metrics import Metric
from cutaway.measure.batches import Progress
from cutaway.measure.finite import check_streams
from cutaway.model.memory import given_back, is_out_of_memory, kept_at_hand
from cutaway.model.model import Model
from cutaway.model.resume import Base, after_mlp, finish, resume, run_base, run_streams
from cutaway.model.run import Run
from cutaway.model.sites import KINDS, Site
from cutaway.patch.cells import Cell
from cutaway.patch.chunks import Chunk, Part, split
from cutaway.patch.experiment import Measured, check_output, room_for
from cutaway.patch.journal import Journal
from cutaway.patch.plan import Plan
from cutaway.patch.sources import FromRun, Means, Source, Zero, means_of, stand_ins
from cutaway.patch.streams import Follower, Watch, needed

_LOGITS = 16 * 2**20
"""Bytes of logits that a metric which is not linear reads at a time."""


def run(plan: Plan, progress: Progress | None, journal: Journal | None) -> Measured:
    """Measure every cell; what the journal has is taken from there."""
    asked, cells = plan.experiment, plan.cells
    found = room_for(asked, len(cells))
    done, total = 0, len(cells) * len(asked.behaviour)
    means: Means | None = None
    for where in asked.batches:
        chunks = plan.chunks(where)
        keys = [
            f"{where.start}.ends",
            *(f"{where.start}.{number}" for number in range(len(chunks))),
        ]
        batch: _Batch | None = None
        if journal is None or any(key not in journal for key in keys):
            batch = _Batch(plan, where)
            if asked.mode == "mean" and means is None:
                means = means_of(asked.model, asked.behaviour, plan.grid, asked.batch_size)
        done += len(cells) * (where.stop - where.start) - sum(chunk.prompts for chunk in chunks)
        with kept_at_hand(asked.model.device):
            ends = _taken(journal, keys[0], lambda b=batch: _there(b).ends())
            found.clean[:, where], found.corrupt[:, where] = ends["clean"], ends["corrupt"]
            base = ends["corrupt" if asked.mode == "denoise" else "clean"]
            found.patched[:, :, where] = base[:, None, :]
            for key, chunk in zip(keys[1:], chunks, strict=True):
                kept = _taken(
                    journal,
                    key,
                    lambda b=batch, c=chunk, m=means: {"values": _there(b).measured(c, m)},
                )
                _fill(found, chunk, kept["values"], where, cells)
                done += chunk.prompts
                if progress is not None:
                    progress(done, total)
        if progress is not None and not chunks:
            progress(done, total)
    return found


def _taken(
    journal: Journal | None, key: str, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What the journal has under a key, or else what is made now, and kept there."""
    found = None if journal is None else journal.finished(key)
    if found is None:
        found = make()
        if journal is not None:
            journal.keep(key, found)
    return found


def _there(batch: _Batch | None) -> _Batch:
    assert batch is not None
    return batch


def _fill(
    found: Measured, chunk: Chunk, values: np.ndarray, where: slice, cells: list[Cell]
) -> None:
    begin = 0
    for part in chunk.parts:
        examples = part.rows + where.start
        mine = values[:, begin : begin + len(part.rows)]
        check_output(mine, cells[part.cell], examples)
        found.patched[:, part.cell, examples] = mine
        begin += len(part.rows)


class _Batch:
    """One batch of examples: its plain runs, and the chunks that change them."""

    def __init__(self, plan: Plan, where: slice) -> None:
        self.plan, self.where = plan, where
        asked = plan.experiment
        self.model, self.mode, self.halves = asked.model, asked.mode, plan.halves
        self.rows = asked.behaviour.rows(where)
        denoise = self.mode == "denoise"
        base_tokens = self.rows.corrupt if denoise else self.rows.clean
        other_tokens = self.rows.clean if denoise else self.rows.corrupt
        kept = needed(self.model, plan.grid.sites, halves=self.halves)
        # Inside attention, watched on both sides, so that both runs go through the same kernel.
        inside = [Watch(site) for site in plan.grid.sites if KINDS[site.kind].interior]
        give = list(plan.grid.sites) if self.mode in ("denoise", "noise") else []
        with given_back(self.model.device):
            self.base: Base = run_base(self.model, base_tokens, kept, taps=inside, logits=False)
            self.other: Run = run_streams(self.model, other_tokens, give)
        pair = (self.other, self.base.run) if denoise else (self.base.run, self.other)
        for run_, prompts in zip(pair, ("clean", "corrupt"), strict=True):
            check_streams(self.model, run_, where.start, prompts)
        self.end = self.rows.clean.labels["end"].to(self.model.device)
        clean, corrupt = (self._final(run_) for run_ in pair)
        self.reader = Reader(self.model, self.rows, asked.metrics, clean)
        self.pair = (clean, corrupt)
        self._source: Source | None = None
        self._follower: Follower | None = None

    def _final(self, run_: Run) -> Tensor:
        stream = run_["resid_final"]
        rows = torch.arange(len(stream), device=stream.device)
        return finish(self.model, stream[rows, self.end.to(stream.device)])

    def ends(self) -> dict[str, np.ndarray]:
        """Each metric (metric, row) of the two plain runs."""
        every = torch.arange(len(self.rows))
        clean, corrupt = (self.reader(final, every) for final in self.pair)
        return {"clean": clean, "corrupt": corrupt}

    def measured(self, chunk: Chunk, means: Means | None) -> np.ndarray:
        """(metric, prompt): a chunk's prompts, in its order."""
        if self._follower is None:
            source = means if means is not None else self._given()
            self._follower = Follower(self.model, self.base, source.edit, halves=self.halves)
        try:
            return self._wave(chunk, self._follower)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or chunk.prompts == 1:
                raise
        return np.concatenate([self.measured(half, means) for half in split(chunk)], axis=1)

    def _given(self) -> Source:
        if self.mode == "zero":
            return Zero()
        if self.mode == "resample":
            asked, sites = self.plan.experiment, list(self.plan.grid.sites)
            others = stand_ins(asked.behaviour, asked.grid, asked.seed).rows(self.where)
            run_ = run_streams(self.model, others, sites)
            check_streams(self.model, run_, self.where.start, "drawn")
            return FromRun(run_)
        return FromRun(self.other)

    def _wave(self, chunk: Chunk, follow: Follower) -> np.ndarray:
        model, last, start = self.model, self.model.n_layers - 1, chunk.start
        joining: dict[int, list[_Joined]] = {}
        for part in chunk.parts:
            joining.setdefault(self.plan.joins(part.cell), []).append(_Joined(part, start))
        live, rows = torch.empty(0), torch.empty(0, dtype=torch.long, device=model.device)
        layers = [layer for layer in joining if layer <= last]
        ending = Site("resid_mid", last) if self.halves else Site("resid_final")
        for number, layer in enumerate(layers):
            entering = [self._entering(each, follow) for each in joining[layer]]
            live = torch.cat([live, *entering]) if len(rows) else torch.cat(entering)
            rows = torch.cat([rows, *(each.rows.to(rows.device) for each in joining[layer])])
            del entering
            after = layers[number + 1 : number + 2]
            until = Site("resid_pre", after[0]) if after else ending
            live = resume(model, self.base, rows, layer, start, live, until)
        finals: list[Tensor] = []
        if len(rows):
            finals.append(self._ended(self._at_end(live, rows, start), mid=self.halves))
        for each in joining.get(last + 1, []):
            stream = follow.stream(self.plan.cells[each.part.cell])
            ended = self._at_end(
                stream.values[each.rows.to(model.device), start:], each.rows, start
            )
            finals.append(self._ended(ended, mid=stream.place == "mid"))
            rows = torch.cat([rows, each.rows.to(rows.device)])
        return self.reader(torch.cat(finals), rows)

    def _entering(self, each: _Joined, follow: Follower) -> Tensor:
        """The stream with which some prompts of a cell enter their layer."""
        stream = follow.stream(self.plan.cells[each.part.cell])
        values = stream.values[each.rows.to(stream.values.device), each.start :]
        return after_mlp(self.model, stream.layer, values) if stream.place == "mid" else values

    def _at_end(self, stream: Tensor, rows: Tensor, start: int) -> Tensor:
        columns = self.end[rows.to(self.end.device)] - start
        return stream[torch.arange(len(stream), device=stream.device), columns.to(stream.device)]

    def _ended(self, stream: Tensor, *, mid: bool) -> Tensor:
        """What the unembedding reads, from the last layer's stream at `end`."""
        if mid:
            stream = after_mlp(self.model, self.model.n_layers - 1, stream[:, None])[:, 0]
        return finish(self.model, stream)


class _Joined:
    """Some prompts of a cell, as a wave takes them up."""

    def __init__(self, part: Part, start: int) -> None:
        self.part, self.start = part, start
        self.rows = torch.from_numpy(part.rows)


@dataclass(frozen=True)
class _Answers:
    """What a metric needs to know of some prompts."""

    answers: tuple[tuple[int, ...], ...]
    wrong_answers: tuple[tuple[int, ...], ...]


class _Linear:
    """Reads one linear metric through its own few directions, for the rows of a batch."""

    def __init__(self, model: Model, rows: Behaviour, metric: Metric) -> None:
        self._cap = model.anatomy.logit_cap
        coefficients = metric.coefficients(rows)
        self._weights = coefficients.weights
        self._directions = model.logit_directions(coefficients.ids)
        self._biases = model.logit_biases(coefficients.ids)

    def __call__(self, final: Tensor, rows: Tensor) -> Tensor:
        """(prompt,): `final` is (prompt, d_model), `rows` which row each prompt is."""
        at = rows.to(self._directions.device)
        directions = self._directions[at]
        logits = (directions @ final.float().to(directions.device)[:, :, None])[..., 0]
        logits = logits + self._biases.to(logits.device)[at.to(logits.device)]
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return (logits * self._weights[rows].to(logits)).sum(dim=1)


class Reader:
    """Reads metrics from what the unembedding reads, for the rows of a batch."""

    def __init__(
        self, model: Model, rows: Behaviour, metrics: tuple[Metric, ...], clean: Tensor
    ) -> None:
        self.model, self.rows, self.metrics = model, rows, metrics
        self._linear = [_Linear(model, rows, m) if m.linear else None for m in metrics]
        needs = any(metric.needs_reference for metric in metrics)
        with torch.no_grad():
            self._reference = model.unembed(clean) if needs else None

    def __call__(self, final: Tensor, rows: Tensor) -> np.ndarray:
        """(metric, prompt): `final` is (prompt, d_model), `rows` which row each prompt is."""
        rows = rows.cpu()
        found = np.empty((len(self.metrics), len(rows)))
        whole = [number for number, linear in enumerate(self._linear) if linear is None]
        for number, linear in enumerate(self._linear):
            if linear is not None:
                found[number] = linear(final, rows).double().cpu().numpy()
        piece = max(1, _LOGITS // (self.model.d_vocab * 4))
        for begin in range(0, len(rows) if whole else 0, piece):
            part = slice(begin, begin + piece)
            with torch.no_grad():
                logits = self.model.unembed(final[part])
            for number in whole:
                values = self._read(self.metrics[number], logits, rows[part])
                found[number, part] = values.double().cpu().numpy()
        return found

    def _read(self, metric: Metric, logits: Tensor, rows: Tensor) -> Tensor:
        listed: list[int] = rows.tolist()
        examples = _Answers(
            tuple(self.rows.answers[row] for row in listed),
            tuple(self.rows.wrong_answers[row] for row in listed),
        )
        reference = None
        if metric.needs_reference and self._reference is not None:
            reference = self._reference[rows.to(self._reference.device)]
        return metric(logits, examples, reference=reference)
