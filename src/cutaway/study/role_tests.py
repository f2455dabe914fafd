"""The roles that a part can be said to have, and the test that each of them stands for.

| role | what has to hold | asked for, unless told |
|---|---|---|
| `writes the answer` | it adds to the logit difference directly; corrupting it lowers the metric; it adds more than the median of other parts | 2 % of the behaviour |
| `needed` | corrupting it in the clean run lowers the metric, more than the median of other parts | 5 % |
| `enough` | put back alone into the corrupt run it restores the metric, more than the median of other parts | half |
| `feeds PART [through q, k or v]` | corrupting what it sends along its paths into PART (or one input of it) lowers the metric, more than the median of other parts | 1 % |
| `attends from LABEL to LABEL` | its attention is above even attention, and above other heads'; cutting it lowers the metric | 0.1 of the attention; 1 % |
| `attends along RELATION` | its attention along the relation (`cutaway.observe.relations`) is above chance, and above other heads'; cutting it lowers the metric | 0.1 of the attention; 1 % |
| `copies` | its full OV circuit raises the tokens that it reads (`cutaway.observe.copying`), more than random weights do | what 99 % of random heads stay under |
| `does not matter` | corrupting it, or putting it back alone, changes the metric by less, either way | 5 % |

Percentages are of the behaviour: of the clean metric for what is written directly, of the gap
between clean and corrupt for what is moved. With `against` the direction is the opposite one.
"Other parts" are controls of the same kind that no hypothesis names (`bench`); not to stand out
among them leaves a role undecided and does not refute it, and so it is with what a cut pattern
does not show.
"""  # noqa: E501 (a table)

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from cutaway.behaviours import Behaviour
from cutaway.errors import CutawayError, StudyError
from cutaway.model import Model, Site
from cutaway.observe import attention_to, copying, detect
from cutaway.observe.relations import KINDS, Mask, known_relation, texts_of
from cutaway.patch import Mode
from cutaway.patch.routes import reads, writes
from cutaway.study.bench import Bench, Each, inputs_of
from cutaway.study.hypothesis import RoleHypothesis, part_name, part_site
from cutaway.study.tested import Condition, condition

_MATTERS = 0.01
Given = Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role and its test."""

    name: str
    """How it is written, places in capitals."""
    says: str
    """What has to hold, in a few words."""
    form: re.Pattern[str]
    """How it is read."""
    size: float
    """What it asks for when the hypothesis does not say."""
    test: Callable[[Bench, RoleHypothesis, Given, float], Iterator[Condition]]
    """What has to hold, measured."""
    heads_only: bool = False
    """Whether an MLP cannot have it."""


def _sign(hypothesis: RoleHypothesis) -> int:
    return -1 if hypothesis.against else 1


def _at_least(
    name: str, effect: Each, share: float, of: Each, *, unit: str, sign: int,
    decides: bool = True,
) -> Condition:  # fmt: skip
    """An effect of at least a share of the behaviour, example by example."""
    bound = share * abs(float(of.mean()))
    margins = sign * effect - share * np.sign(of.mean()) * of
    return condition(
        name, sign * effect, margins, bound=bound, unit=unit, decides=decides
    )  # fmt: skip


def _beyond(effect: Each, others: Each | None, *, unit: str, sign: int) -> Iterator[Condition]:
    """An effect beyond that of the middle one of some controls."""
    if others is not None:
        yield condition(
            "more than the median of other parts", sign * effect, sign * (effect - others),
            bound=sign * float(np.nanmean(others)), unit=unit, decides=False,
        )  # fmt: skip


def _writes(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    sign, added = _sign(hypothesis), bench.adds(hypothesis.parts)
    total = bench.attribution.target.to_numpy()
    yield _at_least(
        "added to the logit difference directly", added, size, total, unit="logits",
        sign=sign,
    )  # fmt: skip
    yield _at_least(
        "lost when it is corrupted", bench.moved(hypothesis.parts, "noise"), size, bench.gap,
        unit=bench.metric, sign=sign,
    )  # fmt: skip
    controls = [bench.adds(parts) for parts in bench.others(hypothesis.parts)]
    yield from _beyond(added, bench.middle(controls), unit="logits", sign=sign)


def _moved(
    bench: Bench, hypothesis: RoleHypothesis, size: float, *, needed: bool
) -> Iterator[Condition]:
    mode: Mode = "noise" if needed else "denoise"
    sign = _sign(hypothesis)
    effect = bench.moved(hypothesis.parts, mode)
    name = "lost when it is corrupted" if needed else "brought back by it alone"
    yield _at_least(name, effect, size, bench.gap, unit=bench.metric, sign=sign)
    controls = [bench.moved(parts, mode) for parts in bench.others(hypothesis.parts)]
    yield from _beyond(effect, bench.middle(controls), unit=bench.metric, sign=sign)


def _needed(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    return _moved(bench, hypothesis, size, needed=True)


def _enough(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    return _moved(bench, hypothesis, size, needed=False)


def _feeds(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    receivers = inputs_of(bench.model, part_site(given["part"]), given["input"])
    controls = bench.others(hypothesis.parts, before=receivers)
    sent = bench.sent([hypothesis.parts, *controls], receivers).to_numpy()
    sign, effect = _sign(hypothesis), sent[0]
    yield _at_least("lost along these paths", effect, size, bench.gap, unit=bench.metric, sign=sign)
    yield from _beyond(effect, bench.middle([*sent[1:]]), unit=bench.metric, sign=sign)


def _looks(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    query, key = str(given["query"]), str(given["key"])

    def there(rows: Behaviour) -> Mask:
        width, each = rows.clean.ids.shape[1], torch.arange(len(rows))
        mask = torch.zeros(len(rows), width, width, dtype=torch.bool)
        mask[each, rows.clean.labels[query], rows.clean.labels[key]] = True
        return mask

    weights = attention_to(bench.model, bench.rows, query=query, positions=[key]).values
    labels, first = bench.rows.clean.labels, bench.rows.clean.first
    even = (1 / (labels[query] - first + 1).double()).cpu().numpy()
    by_head = weights.isel(position=0).transpose("layer", "head", "example").to_numpy()
    yield from _attention(bench, hypothesis, by_head, np.broadcast_to(even, by_head.shape), size)
    yield _blind(bench, hypothesis, there, "lost when it may not look there")


def _along(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    relation = known_relation(str(given["relation"]), bench.model)

    def there(rows: Behaviour) -> Mask:
        texts = texts_of(bench.model, rows.clean) if relation.texts else []
        return relation.mask(rows.clean, texts)

    found = detect(bench.model, bench.rows, relations=[relation.name], seed=bench.seed)
    values, chance = (
        array.isel(relation=0).transpose("layer", "head", "example").to_numpy()
        for array in (found.values, found.chance)
    )
    yield from _attention(bench, hypothesis, values, chance, size)
    yield _blind(bench, hypothesis, there, "lost when it may not look along it")


def _attention(
    bench: Bench, hypothesis: RoleHypothesis, by_head: np.ndarray, chance: np.ndarray, size: float
) -> Iterator[Condition]:
    """Attention (layer, head, example) above chance, and above other heads'."""

    def of(array: np.ndarray, parts: Sequence[str]) -> list[Each]:
        sites = [Site.parse(part) for part in parts]
        return [array[site.layer, site.index] for site in sites]

    own, even = (np.mean(of(array, hypothesis.parts), axis=0) for array in (by_head, chance))
    yield condition(
        "attention beyond chance", own - even, own - even - size, bound=size, unit="attention"
    )
    middle = bench.middle(of(by_head, bench.unnamed("head_out")))
    yield from _beyond(own, middle, unit="attention", sign=1)


def _blind(
    bench: Bench, hypothesis: RoleHypothesis, there: Callable[[Behaviour], Mask], name: str
) -> Condition:
    """What is lost without that attention."""
    return _at_least(
        name, bench.cut(hypothesis.parts, there), _MATTERS, bench.gap, unit=bench.metric,
        sign=_sign(hypothesis), decides=False,
    )  # fmt: skip


def _copies(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    found, sign = copying(bench.model, seed=bench.seed), _sign(hypothesis)
    for part in hypothesis.parts:
        site = Site.parse(part)
        score = sign * float(found.values.sel(layer=site.layer, head=site.index))
        yield Condition(
            name=f"copying score of {part_name(part)}", effect=score, low=score, high=score,
            unit="score", bound=size or float(found.chance),
        )  # fmt: skip


def _idle(
    bench: Bench, hypothesis: RoleHypothesis, given: Given, size: float
) -> Iterator[Condition]:
    sign_of_gap = np.sign(bench.gap.mean())
    ways: tuple[tuple[Mode, str], ...] = (
        ("noise", "lost when it is corrupted"), ("denoise", "brought back by it alone"),
    )  # fmt: skip
    for mode, name in ways:
        effect = bench.moved(hypothesis.parts, mode)
        most = size * sign_of_gap * bench.gap
        for sign, side in ((1, "at most"), (-1, "at least minus")):
            yield condition(
                f"{name}, {side}", effect, most - sign * effect,
                bound=sign * size * abs(float(bench.gap.mean())), unit=bench.metric,
            )  # fmt: skip


_PART = r"(?P<part>(?:head |head_out\.|mlp |MLP |mlp_out\.)?\d+(?:\.\d+)?)"
_LISTED = (
    Role(
        name="writes the answer", says="it adds to the logit difference directly", size=0.02,
        form=re.compile("writes? the answer"), test=_writes,
    ),
    Role(
        name="needed", says="without it the metric falls", size=0.05,
        form=re.compile("(is |are )?needed"), test=_needed,
    ),
    Role(
        name="enough", says="it alone brings the metric back", size=0.5,
        form=re.compile("(is |are )?enough"), test=_enough,
    ),
    Role(
        name="feeds PART", says="its paths into that part carry the behaviour", size=_MATTERS,
        form=re.compile(rf"feeds? {_PART}(?: through (?P<input>[qkv]))?"), test=_feeds,
    ),
    Role(
        name="attends from LABEL to LABEL", says="it looks there, and that matters", size=0.1,
        form=re.compile(r"attends? from (?P<query>\S+) to (?P<key>\S+)"), test=_looks,
        heads_only=True,
    ),
    Role(
        name="attends along RELATION", says="it looks along that relation, and that matters",
        size=0.1, form=re.compile("attends? along (?P<relation>.+)"), test=_along,
        heads_only=True,
    ),
    Role(
        name="copies", says="its weights raise the tokens that it reads", size=0.0,
        form=re.compile("cop(?:y|ies)"), test=_copies, heads_only=True,
    ),
    Role(
        name="does not matter", says="moving it changes nothing to speak of", size=0.05,
        form=re.compile("do(?:es)? not matter"), test=_idle,
    ),
)  # fmt: skip

ROLES: Mapping[str, Role] = MappingProxyType({role.name: role for role in _LISTED})
"""Every role by name."""


def read_role(hypothesis: RoleHypothesis) -> tuple[Role, Given]:
    """The role that a hypothesis is about, and its places. Raises `StudyError` for none."""
    for role in ROLES.values():
        if found := role.form.fullmatch(hypothesis.role):
            return role, found.groupdict()
    raise StudyError(
        f"There is no role {hypothesis.role!r}; a part can be said to be or do: {', '.join(ROLES)}."
    )


def check_hypothesis(hypothesis: RoleHypothesis, model: Model, labels: tuple[str, ...]) -> None:
    """Refuse a hypothesis about what is not there, in one sentence that names it."""
    role, given = read_role(hypothesis)
    named = [*hypothesis.parts, *([part_site(given["part"])] if "part" in given else [])]
    for part in named:
        _check_part(part, hypothesis, model)
    if role.heads_only and any(part.startswith("mlp_out") for part in hypothesis.parts):
        raise StudyError(f"The hypothesis “{hypothesis}” is about an MLP, which has no attention.")
    for name in (given.get("query"), given.get("key")):
        if name is not None and name not in labels:
            raise StudyError(
                f"The hypothesis “{hypothesis}” names the position {name!r}, and the prompts have "
                f"{', '.join(labels)}."
            )
    relation = given.get("relation")
    if relation is not None and relation not in KINDS:
        raise StudyError(
            f"The hypothesis “{hypothesis}” names the relation {relation!r}; there are "
            f"{', '.join(KINDS)}."
        )
    if "part" in given:
        _check_path(hypothesis, model, inputs_of(model, named[-1], given["input"]))


def _check_part(part: str, hypothesis: RoleHypothesis, model: Model) -> None:
    site = Site.parse(part)
    there = (site.layer or 0) < model.n_layers and (site.index or 0) < model.n_heads
    if not there:
        raise StudyError(
            f"The hypothesis “{hypothesis}” names {part_name(part)}, which there is not: "
            f"{model.name} has layers 0 to {model.n_layers - 1} with heads 0 to "
            f"{model.n_heads - 1} in each."
        )


def _check_path(hypothesis: RoleHypothesis, model: Model, receivers: list[str]) -> None:
    until = max(reads(model, Site.parse(each)) for each in receivers)
    for part in hypothesis.parts:
        if writes(Site.parse(part)) >= until:
            raise StudyError(
                f"The hypothesis “{hypothesis}” has no path: {part_name(part)} writes after "
                "the other has read."
            )


def measure(bench: Bench, hypothesis: RoleHypothesis) -> tuple[Condition, ...] | str:
    """Everything that the role asks for, measured; a sentence where it cannot be."""
    role, given = read_role(hypothesis)
    size = role.size if hypothesis.size is None else hypothesis.size
    try:
        return tuple(role.test(bench, hypothesis, given, size))
    except CutawayError as error:
        return str(error)
