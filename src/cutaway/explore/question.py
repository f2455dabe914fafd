"""What a page asks, read from JSON: checked field by field, refused in one sentence.

{"prompt": "…", "changes": [{"do": "ablate", "site": "z.2.1", "position": null, "mode": "zero"}],
 "position": 14, "head": [2, 1], "neurons": null, "target": null, "against": null,
 "show": "edited"}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from cutaway.explore.changes import (
    ABLATED_OR_PATCHED,
    STEERED,
    Ablation,
    Change,
    ExploreError,
    Patch,
    Steering,
)
from cutaway.model.model import Model
from cutaway.model.sites import Site

Show = Literal["edited", "plain", "difference"]
"""Which run the figures show: with the changes, without, or (where that means something) both."""
MOST_CHANGES = 32
"""More changes than a person makes; each may cost a run of another prompt."""
STRONGEST = 1000.0
"""In lengths of the stream."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt, what is changed, and what is looked at."""

    prompt: str
    """The text."""
    changes: tuple[Change, ...]
    """What is changed, in order."""
    position: int | None
    """The token after which the answer is read; None for the last."""
    head: tuple[int, int] | None
    """Layer and head whose attention is shown; None for the one that writes most of the logit."""
    neurons: int | None
    """The layer whose neurons are shown; None for none."""
    target: int | None
    """The token whose logit is split up; None for the likeliest without changes."""
    against: int | None
    """The token whose logit is taken off it; None for none."""
    show: Show
    """Which run is shown."""


def question(model: Model, data: object) -> Question:
    """Read a question. Raises `ExploreError`, or what the model says of its sites."""
    fields = Fields(data, "The question")
    listed = fields.several("changes")
    if len(listed) > MOST_CHANGES:
        raise ExploreError(
            f"There are {len(listed)} changes, more than the {MOST_CHANGES} that are taken at a "
            "time; remove some."
        )
    shown = fields.text("show") if "show" in fields else "edited"
    if shown not in get_args(Show):
        raise ExploreError(f"'show' is one of {', '.join(get_args(Show))}; found {shown!r}.")
    neurons = fields.whole("neurons")
    if neurons is not None:
        model.check_site(Site("mlp_post", neurons))
    return Question(
        prompt=fields.text("prompt"),
        changes=tuple(change(model, each) for each in listed),
        position=fields.whole("position"),
        head=_head(model, fields),
        neurons=neurons,
        target=_token(model, fields, "target"),
        against=_token(model, fields, "against"),
        show=cast("Show", shown),
    )


def change(model: Model, data: object) -> Change:
    """Read one change."""
    fields = Fields(data, "A change")
    do = fields.text("do")
    position = fields.whole("position")
    if do == "steer":
        site = _site(model, fields, STEERED, "steered")
        toward = fields.text_or_whole("token")
        plus, minus = (
            ("", "") if toward is not None else (fields.text("plus"), fields.text("minus"))
        )
        return Steering(
            site=site, position=position, strength=_strength(fields), token=toward, plus=plus,
            minus=minus,
        )  # fmt: skip
    site = _site(model, fields, ABLATED_OR_PATCHED, "ablated or patched")
    if do == "ablate":
        mode = fields.text("mode") if "mode" in fields else "zero"
        if mode not in ("zero", "mean"):
            raise ExploreError(f"A part is ablated to zero or to its mean; found {mode!r}.")
        return Ablation(site=site, position=position, mode=mode)
    if do == "patch":
        source = fields.whole("source_position")
        if position is None and source is not None:
            raise ExploreError("A source position goes with a position; give both or neither.")
        return Patch(
            site=site, position=position, prompt=fields.text("prompt"), source_position=source
        )
    raise ExploreError(f"A change is to ablate, patch or steer; found {do!r}.")


class Fields:
    """A JSON object's fields, each of the kind that is expected."""

    def __init__(self, data: object, what: str) -> None:
        if not isinstance(data, dict):
            raise ExploreError(f"{what} must be a JSON object; found {_kind(data)}.")
        self._data: Mapping[str, Any] = cast("dict[str, Any]", data)
        self._what = what

    def __contains__(self, name: str) -> bool:
        return self._data.get(name) is not None

    def text(self, name: str) -> str:
        """A text of whole characters."""
        found = self._data.get(name)
        if not isinstance(found, str):
            raise ExploreError(f"{self._what} needs a text {name!r}; found {_kind(found)}.")
        half = next((c for c in found if "\ud800" <= c <= "\udfff"), None)
        if half is not None:
            raise ExploreError(
                f"The text of {name!r} holds half a character (U+{ord(half):04X} alone), which "
                "no tokenizer can read; remove it."
            )
        return found

    def whole(self, name: str) -> int | None:
        """A whole number, or None where there is none."""
        found = self._data.get(name)
        if found is None or (isinstance(found, int) and not isinstance(found, bool)):
            return found
        raise ExploreError(f"{self._what} has {name!r} as a whole number; found {_kind(found)}.")

    def number(self, name: str) -> float:
        """A finite number."""
        found = self._data.get(name)
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            value = float(found) if abs(found) < 1e300 else math.inf
            if math.isfinite(value):
                return value
        raise ExploreError(f"{self._what} needs a finite number {name!r}; found {_kind(found)}.")

    def text_or_whole(self, name: str) -> str | int | None:
        """A text, a whole number, or None where there is neither."""
        return self.text(name) if isinstance(self._data.get(name), str) else self.whole(name)

    def several(self, name: str) -> Sequence[object]:
        """A list, empty where there is none."""
        found: object = self._data.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise ExploreError(f"{self._what} has {name!r} as a list; found {_kind(found)}.")
        return cast("list[object]", found)


def _kind(data: object) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
    }
    if data is None:
        return "nothing"
    return names.get(type(data), "a number")


def _site(model: Model, fields: Fields, kinds: Sequence[str], done: str) -> Site:
    site = model.check_site(Site.parse(fields.text("site")))
    if site.kind not in kinds:
        raise ExploreError(
            f"{str(site)!r} cannot be {done} here; choose a site of {', '.join(kinds)}."
        )
    return site


def _strength(fields: Fields) -> float:
    strength = fields.number("strength")
    if abs(strength) > STRONGEST:
        raise ExploreError(
            f"A strength lies between −{STRONGEST:g} and {STRONGEST:g}; found {strength:g}."
        )
    return strength


def _head(model: Model, fields: Fields) -> tuple[int, int] | None:
    listed = fields.several("head")
    if not listed:
        return None
    if len(listed) != 2 or not all(type(each) is int for each in listed):
        raise ExploreError("'head' is a layer and a head, as in [2, 1].")
    layer, head = cast("Sequence[int]", listed)
    if head < 0:
        raise ExploreError(f"Heads are numbered from 0; found {head}.")
    model.check_site(Site("pattern", layer, head))
    return layer, head


def _token(model: Model, fields: Fields, name: str) -> int | None:
    found = fields.whole(name)
    if found is not None and not 0 <= found < model.d_vocab:
        raise ExploreError(
            f"Tokens of {model.name} are numbered 0 to {model.d_vocab - 1}; found {found}."
        )
    return found
