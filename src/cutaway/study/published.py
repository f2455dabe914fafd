"""What the literature found of other models, as roles that can be tested on this one.

A study tests them beside its own, about its own strongest parts, so that the report can say where
the model that it looked at learnt another algorithm. Refuting one says nothing against its paper,
which is about another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PublishedRole:
    """One finding about some model, put as a role."""

    of: Literal["writer", "sender to q", "sender to k"]
    """About whom: the head that writes most of the answer, or what sends most into its queries or
    keys."""
    role: str
    """The role; `WRITER` stands for that head."""
    says: str
    """The finding in words."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper found."""

    paper: str
    """Who and when."""
    model: str
    """In which model."""
    heads_write: bool
    """Whether attention heads, and no MLP, write the answer there."""
    roles: tuple[PublishedRole, ...]
    """Its findings."""


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "ioi": Published(
            paper="Wang et al. 2022", model="GPT-2 small", heads_write=True,
            roles=(
                PublishedRole(
                    of="writer", role="attends from end to IO",
                    says="the heads that write the answer look from the end at the indirect object",
                ),
                PublishedRole(
                    of="writer", role="copies", says="these heads copy the token they look at",
                ),
                PublishedRole(
                    of="sender to q", role="feeds WRITER through q",
                    says="earlier heads tell them through their queries where to look",
                ),
            ),
        ),
        "induction": Published(
            paper="Olsson et al. 2022", model="two-layer attention-only models", heads_write=True,
            roles=(
                PublishedRole(
                    of="writer", role="attends along induction",
                    says="the head that writes the answer looks at what followed the same token "
                    "before",
                ),
                PublishedRole(
                    of="sender to k", role="feeds WRITER through k",
                    says="a previous-token head gives it its keys",
                ),
            ),
        ),
        "greater-than": Published(
            paper="Hanna et al. 2023", model="GPT-2 small", heads_write=False,
            roles=(
                PublishedRole(
                    of="writer", role="attends from end to YY",
                    says="heads look from the end at the year",
                ),
            ),
        ),
        "acronyms": Published(
            paper="García-Carrasco et al. 2024", model="GPT-2 small", heads_write=True,
            roles=(
                PublishedRole(
                    of="writer", role="attends from end to C3",
                    says="the heads that write the last letter look at the third word",
                ),
            ),
        ),
    }
)  # fmt: skip
"""Findings by the built-in behaviour that they are about."""
