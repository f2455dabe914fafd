"""Which positions of which prompts belong to each group of a graph that is split by label.

A label names one position in each prompt; all other positions, padding too, are one more group. A
masked forward mixes each group's tokens by that group's part of the mask, so it keeps them sorted
by group: every group is then one slice, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cutaway.circuits.graph import CircuitError, Graph
from cutaway.model.tokens import Tokens


def groups(graph: Graph, tokens: Tokens) -> Int[Tensor, "row position"]:
    """Each token's group: its place among `graph.labels`.

    Raises `CircuitError` for a label that the prompts lack, and for two that name one token.
    """
    found = torch.full_like(tokens.ids, len(graph.positions))
    rows = torch.arange(len(tokens), device=found.device)
    for group, label in enumerate(graph.positions):
        if label not in tokens.labels:
            raise CircuitError(
                f"These prompts have no position label {label!r} to split edges by; they have "
                f"{', '.join(tokens.labels)}."
            )
        where = tokens.labels[label].to(found.device)
        taken = found[rows, where]
        if bool((taken < len(graph.positions)).any()):
            other = graph.positions[int(taken.min())]
            raise CircuitError(
                f"The position labels {other!r} and {label!r} name the same token in some prompt, "
                "so its edges would belong to both; split by one of them only."
            )
        found[rows, where] = group
    return found


@dataclass(frozen=True, kw_only=True)
class Places:
    """The tokens of some rows, sorted by group; as they are, where there is one group."""

    width: int
    """Positions in a row."""
    parts: tuple[slice, ...]
    """Each group's tokens, along `position`."""
    order: Int[Tensor, " token"] | None = None
    """The sorted tokens, as row · width + position; None where they are not sorted."""

    @classmethod
    def of(cls, graph: Graph, tokens: Tokens, start: int = 0) -> Places:
        """Those of the positions from `start` on."""
        width = tokens.ids.shape[1] - start
        if not graph.positions:
            return cls(width=width, parts=(slice(None),))
        group = groups(graph, tokens)[:, start:].flatten()
        counts = torch.bincount(group, minlength=len(graph.labels)).tolist()
        ends = torch.tensor([0, *counts]).cumsum(0).tolist()
        parts = tuple(slice(a, b) for a, b in pairwise(ends))
        return cls(width=width, parts=parts, order=group.argsort(stable=True))

    def sorted(self, x: Float[Tensor, "mask row position *rest"]) -> Tensor:
        """The tokens in order: (mask, 1, token, …)."""
        return x if self.order is None else x.flatten(1, 2)[:, None, self.order]

    def spread(self, x: Float[Tensor, "row_or_1 position_or_1 *rest"]) -> Tensor:
        """The same of what may serve all rows, or all positions: (1, token, …)."""
        if self.order is None or tuple(x.shape[:2]) == (1, 1):
            return x
        rows = len(self.order) // self.width
        return x.expand(rows, self.width, *x.shape[2:]).flatten(0, 1)[self.order][None]

    def restored(self, x: Float[Tensor, "mask token *rest"]) -> Tensor:
        """What `sorted` sorted, as (mask · row, position, …)."""
        if self.order is None:
            return x
        return x[:, self.order.argsort()].unflatten(1, (-1, self.width)).flatten(0, 1)

    def at(self, position: Int[Tensor, " row"]) -> tuple[Tensor, Tensor]:
        """Where one position of each row stands, as indices of the sorted tensors' two axes."""
        rows = torch.arange(len(position), device=position.device)
        if self.order is None:
            return rows, position
        return torch.zeros_like(rows), self.order.argsort()[rows * self.width + position]


@dataclass(frozen=True, kw_only=True)
class Picked:
    """One group's tokens of each row: a single one, or all with weights of 1 and 0."""

    weight: Float[Tensor, "row position"] | None = None
    """1 at the group's tokens; None where all are."""
    where: Int[Tensor, " row"] | None = None
    """The single token's position; None for all."""

    def __call__(self, x: Float[Tensor, "row position *rest"]) -> Tensor:
        """The tokens of a tensor, along `position`; the weight is not applied."""
        if self.where is None:
            return x
        return x[torch.arange(len(self.where), device=x.device), self.where][:, None]

    def along_rows(self, x: Float[Tensor, "writer row position d_model"]) -> Tensor:
        """The tokens of a stack of such tensors."""
        if self.where is None:
            return x
        return x[:, torch.arange(len(self.where), device=x.device), self.where][:, :, None]

    def weighted(self, x: Float[Tensor, "row position *rest"]) -> Tensor:
        """The tokens, zero where they are not the group's."""
        if self.weight is None:
            return x
        return self(x) * self.weight.to(x).view(*self.weight.shape, *[1] * (x.ndim - 2))


def picked(graph: Graph, tokens: Tokens, start: int) -> Iterator[Picked]:
    """Each group's tokens from `start` on, in the order of `graph.labels`."""
    if not graph.positions:
        yield Picked()
        return
    group = groups(graph, tokens)[:, start:]
    for label in graph.positions:
        where = tokens.labels[label] - start
        inside = (where >= 0)[:, None]
        yield Picked(weight=inside.float(), where=where.clamp(min=0))
    rest: Bool[Tensor, "row position"] = group == len(graph.positions)
    yield Picked(weight=rest.float())
