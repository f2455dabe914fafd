"""Runs of one prompt, kept while there is room, and stopped when nobody waits for them.

A run without changes is asked for again with every change that is tried beside it, so runs are kept
by prompt, changes and sites, the least recently used ones going first. Only what is looked at is
kept: streams, heads and MLPs; of patterns and neurons one layer; of logits nothing, since
`final_norm` gives those of any position.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event

from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.explore.changes import Change, ExploreError
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.run import Run
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens

BUDGET = 256 * 2**20
"""Bytes of kept runs."""
LONGEST = 2048
"""Tokens of a prompt, where a model's context allows more: a page shows no more."""


class StoppedError(CutawayError):
    """The work was called off."""


class Stop:
    """Calls work off: a tap that ends a forward pass at the next layer once it is set."""

    def __init__(self) -> None:
        self._event = Event()

    def set(self) -> None:
        """Call the work off."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether it is called off."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `StoppedError` once the work is called off."""
        if self.is_set():
            raise StoppedError("The page that asked no longer waits for an answer.")

    def wants(self, site: Site) -> bool:
        """The beginning of every layer."""
        return site.kind == "resid_pre"

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """Go on, or stop here."""
        self.check()
        return x


@dataclass(frozen=True)
class _Key:
    prompt: str
    changes: tuple[Change, ...]
    sites: frozenset[Site]


class Runs:
    """A model's runs; used by one thread at a time."""

    def __init__(self, model: Model, budget: int = BUDGET) -> None:
        self.model, self.budget = model, budget
        self._kept: OrderedDict[_Key, Run] = OrderedDict()

    def tokens(self, prompt: str) -> Tokens:
        """A prompt's tokens, once they fit the model's context. Raises `InputError`."""
        if not prompt:
            raise ExploreError("Type a prompt of at least one character.")
        tokens = self.model.checked(self.model.tokens(prompt))
        if tokens.ids.shape[1] > LONGEST:
            raise ExploreError(
                f"The prompt has {tokens.ids.shape[1]} tokens, more than the {LONGEST} that are "
                "shown here; shorten it."
            )
        return tokens

    def run(
        self, prompt: str, keep: Sequence[Site], stop: Stop, changes: tuple[Change, ...] = ()
    ) -> Run:
        """The run of a prompt with some changes, which kept at least `keep`."""
        key = _Key(prompt, changes, frozenset(keep))
        found = self._kept.pop(key, None)
        if found is None:
            stop.check()
            tokens = self.tokens(prompt)

            def runner(prompt: str, keep: tuple[Site, ...]) -> Run:
                return self.run(prompt, keep, stop)

            edits = [each.edit(self.model, prompt, runner) for each in changes]
            run = self.model.run(tokens, keep=list(keep), edits=edits, taps=[stop])
            if not bool(run.logits.isfinite().all()):
                raise ExploreError(
                    "The logits are no longer finite numbers with these changes; choose a smaller "
                    "strength, or remove one."
                )
            found = replace(run, logits=run.logits[:, :0].clone())
        self._kept[key] = found
        self._make_room()
        return found

    @property
    def kept_bytes(self) -> int:
        """What the kept runs take."""
        return sum(tensor.nbytes for run in self._kept.values() for tensor in run.kept.values())

    def _make_room(self) -> None:
        while len(self._kept) > 1 and self.kept_bytes > self.budget:
            self._kept.popitem(last=False)
