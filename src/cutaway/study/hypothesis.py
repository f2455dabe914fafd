"""A hypothesis about a part: which heads or MLPs, which role, which prediction.

    RoleHypothesis("2.2", "writes the answer")
    RoleHypothesis("mlp 0", "feeds 2.2 through v", size=0.1)
    RoleHypothesis(("1.3", "2.4"), "attends from end to S2")
    RoleHypothesis("mlp 3", "does not matter")

The roles, and the test that each stands for, are in `role_tests.ROLES`. The prediction is made
before anything is tested: the direction (`against` turns it round) and the size that the role asks
for, or one of your own. A file holds the same, in TOML or in JSON (a list under `hypothesis`):

    [[hypothesis]]
    parts = ["1.3", "2.4"]
    role = "writes the answer"
    size = 0.05
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from cutaway.errors import StudyError
from cutaway.model import Site

_HEAD = re.compile(r"(?:head |head_out\.)?(\d+)\.(\d+)")
_MLP = re.compile(r"(?:mlp |mlp_out\.)(\d+)", re.IGNORECASE)


@dataclass(frozen=True, init=False)
class RoleHypothesis:
    """A stated role. Raises `StudyError` for parts, roles and sizes that cannot be read."""

    parts: tuple[str, ...]
    """Heads and MLPs, taken together, as sites (`head_out.2.2`, `mlp_out.0`); also read from "2.2",
    "head 2.2" or "mlp 0", and from a single one."""
    role: str
    """What they are said to do: an entry of `ROLES`, with its places filled in."""
    size: float | None
    """What is predicted, in the role's unit: at least so much, or for "does not matter" at most.
    None: what the role asks for."""
    against: bool
    """Whether the opposite direction is predicted: that they work against the behaviour."""

    def __init__(
        self, parts: str | Sequence[str], role: str, *, size: float | None = None,
        against: bool = False,
    ) -> None:  # fmt: skip
        number = isinstance(size, int | float) and not isinstance(size, bool)
        if size is not None and not (number and 0 <= size < float("inf")):
            raise StudyError(f"A hypothesis predicts a size of 0 or more; found {size!r}.")
        if not isinstance(cast("object", against), bool):
            raise StudyError(f"against is true or false; found {against!r}.")
        if not isinstance(cast("object", role), str) or not role.strip():
            raise StudyError(f"A hypothesis has a role in words; found {role!r}.")
        each = {"parts": _sites(parts), "role": " ".join(role.split()), "size": size,
                "against": against}  # fmt: skip
        for name, value in each.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        turned = " (against the behaviour)" if self.against else ""
        return f"{' with '.join(part_name(part) for part in self.parts)} {self.said}{turned}"

    @property
    def said(self) -> str:
        """The role as a sentence says it, its parts by the names that a person uses."""
        words = "does not matter" if self.role == "does not matter" else self.role
        if words in ("needed", "enough"):
            words = f"is {words}"
        return _MLP.sub(lambda found: f"MLP {found[1]}", words)


def _sites(given: object) -> tuple[str, ...]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, Sequence) or not listed:
        raise StudyError(f"A hypothesis names one part or several; found {given!r}.")
    named = tuple(part_site(part) for part in cast("Sequence[object]", listed))
    if len(set(named)) < len(named):
        raise StudyError(f"A hypothesis names each part once; found {', '.join(named)}.")
    return named


def part_site(part: object) -> str:
    """A part's site, however it was written. Raises `StudyError` for what is neither."""
    text = str(part).strip() if isinstance(part, str) else ""
    if found := _HEAD.fullmatch(text):
        return str(Site("head_out", int(found[1]), int(found[2])))
    if found := _MLP.fullmatch(text):
        return str(Site("mlp_out", int(found[1])))
    raise StudyError(
        f"{part!r} is neither a head nor an MLP; write '2.2' (layer and head), or 'mlp 0'."
    )


def part_name(part: str) -> str:
    """A part as a person reads it: `head 2.2`, `MLP 0`."""
    site = Site.parse(part)
    return f"MLP {site.layer}" if site.index is None else f"head {site.layer}.{site.index}"


def read_hypotheses(path: str | Path) -> tuple[RoleHypothesis, ...]:
    """The hypotheses of a TOML or JSON file. Raises `StudyError` that names the entry at fault."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
        found: Any = json.loads(text) if file.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise StudyError(
            f"The hypotheses in {file} cannot be read ({error.strerror or error}); give a TOML or "
            "JSON file."
        ) from error
    except ValueError as error:  # also what cannot be decoded
        raise StudyError(f"{file} is neither TOML nor JSON (*.json): {error}.") from error
    listed = found.get("hypothesis") if isinstance(found, dict) else found
    if not isinstance(listed, list) or not listed:
        raise StudyError(
            f"{file} states no hypothesis; give each a [[hypothesis]] with parts and a role."
        )
    return tuple(_read(file, number, each) for number, each in enumerate(listed, start=1))


def _read(file: Path, number: int, given: object) -> RoleHypothesis:
    known = [field.name for field in fields(RoleHypothesis)]
    if not isinstance(given, Mapping):
        raise StudyError(f"Hypothesis {number} of {file} is not a table with parts and a role.")
    entry = cast("Mapping[str, Any]", given)
    unknown, missing = sorted(set(entry) - set(known)), {"parts", "role"} - set(entry)
    if unknown or missing:
        what = f"has {unknown[0]!r}" if unknown else f"lacks {min(missing)!r}"
        raise StudyError(f"Hypothesis {number} of {file} {what}; it takes {', '.join(known)}.")
    try:
        return RoleHypothesis(**entry)
    except StudyError as error:
        raise StudyError(f"Hypothesis {number} of {file}: {error}") from error
