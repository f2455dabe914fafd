"""Stand-ins: prompts drawn to take another's place, among those that agree with it on a feature.

All of a behaviour's clean prompts can stand in. One stands in for another only if it has as many
tokens, padded alike, since streams are swapped position by position; so length is part of every
feature. A prompt is its own stand-in only where no other one agrees: the paper draws it with its
chance among those that do, which in a small set of prompts makes every hypothesis look right.

A draw is a function of the seed and of the path in the tree of claims that it is made for, and of
nothing else: so it does not depend on batches, nor on which other claims are tested.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.circuits.features import Feature, case_of
from cutaway.circuits.graph import CircuitError

Rows = Int[Tensor, " row"]


class StandIns:
    """A behaviour's prompts, grouped by what they agree on."""

    def __init__(self, behaviour: Behaviour, within: Feature, seed: int) -> None:
        self.behaviour, self.within, self.seed = behaviour, within, seed
        self.cases = [case_of(behaviour, row) for row in range(len(behaviour))]
        self._shapes = [row.numpy().tobytes() for row in behaviour.clean.mask.cpu()]
        self._groups: dict[Feature, tuple[np.ndarray, ...]] = {}

    def others(self, feature: Feature) -> Int[np.ndarray, " prompt"]:
        """How many other prompts agree with each one."""
        _, first, last, _ = self._grouped(feature)
        return last - first - 1

    def check(self, rows: Rows) -> None:
        """Raises `CircuitError` where a prompt has no stand-in even if nothing matters."""
        alone = rows[torch.from_numpy(self.others(Feature(())) == 0)[rows]]
        if len(alone):
            among = "" if str(self.within) == "anything" else f" with the same {self.within}"
            raise CircuitError(
                f"{len(alone)} of the {len(rows)} prompts of {self.behaviour.name!r} have no other "
                f"of their length{among}, and only such prompts can stand in for one another; use "
                "more prompts, or prompts of one template."
            )

    def __call__(self, feature: Feature, rows: Rows, path: str, draws: slice, total: int) -> Rows:
        """For each row another one that agrees; itself only where there is no other.

        `rows` are the references of the draws `draws` out of `total`.
        """
        generator = np.random.default_rng([self.seed, zlib.crc32(path.encode())])
        chance = generator.random(total)[draws]
        ranks, first, last, order = self._grouped(feature)
        at = rows.numpy()
        others = (last - first - 1)[at]
        # Among the group without the row itself: the places after its own move up by one.
        step = np.minimum((chance * others).astype(int), np.maximum(others - 1, 0))
        step = step + (step >= (ranks - first)[at])
        return torch.from_numpy(order[np.where(others > 0, first[at] + step, ranks[at])])

    def _grouped(self, feature: Feature) -> tuple[np.ndarray, ...]:
        """Each prompt's place when sorted by group, its group's first and last place, the order."""
        if feature not in self._groups:
            keys = [self._key(feature, row) for row in range(len(self.cases))]
            numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            group = np.array([numbers[key] for key in keys])
            order = np.argsort(group, kind="stable")
            ends = np.cumsum(np.bincount(group))
            firsts = np.concatenate([[0], ends[:-1]])
            self._groups[feature] = (np.argsort(order), firsts[group], ends[group], order)
        return self._groups[feature]

    def _key(self, feature: Feature, row: int) -> Hashable:
        case = self.cases[row]
        return self._shapes[row], self.within.of(case), feature.of(case)
