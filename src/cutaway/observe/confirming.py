"""Whether what a head attends to matters: take that attention away and measure.

For a relation or a role, one head and a behaviour:

1. the head's attention along the relation (for a role: from `end` to where it looks) is set to
   zero; its other weights stay as they are, and nothing else of the model is held;
2. `change` is by how much the behaviour's metric falls, example by example, with its interval. For
   copy suppression, which is about whatever is predicted, it is the log-probability of that token;
3. a role says which way the metric must go: it *falls* without a name mover or an S-inhibition
   head, and *rises* without a head that lowers the answer. A relation alone says no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.behaviours.interval import bootstrap
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.errors import InputError
from cutaway.measure.batches import batch_size_for, batches
from cutaway.model.model import Model
from cutaway.model.ports import Passing
from cutaway.model.sites import Site
from cutaway.observe.heads import Head, layer_and_head
from cutaway.observe.relations import KINDS, Mask, known_relation, texts_of
from cutaway.observe.roles import ROLES, Looked, Role, predicted_before, why_not


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What a behaviour loses when a head may not attend along a relation."""

    head: tuple[int, int]
    """Layer and head."""
    relation: str
    """The relation or role."""
    clean: float
    """The metric of the model."""
    change: float
    """By how much the metric falls, on average over examples."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end."""
    expected: int
    """1 where the metric must fall, -1 where it must rise, 0 where either will do (a relation)."""

    @property
    def matters(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    @property
    def as_expected(self) -> bool:
        """Whether it matters, in the direction that the role says."""
        return self.matters and self.change * self.expected >= 0


def confirm(
    model: Model,
    behaviour: Behaviour,
    head: Head,
    relation: str,
    *,
    metric: str | Metric | None = None,
    batch_size: int | None = None,
) -> Confirmed:
    """Take the attention along a relation (or as a role wants it) out of one head, and measure.

    Raises `InputError` for a relation that does not exist, or a role that the behaviour has no
    prompts for.
    """
    layer, index = layer_and_head(head)
    site = model.check_site(Site("pattern", layer, index)).whole
    role = _role(relation, behaviour)
    own = role is not None and role.predicts and metric is None
    chosen = metric or behaviour.metric
    measure = chosen if isinstance(chosen, Metric) else METRICS[chosen]
    fell, clean = np.empty(len(behaviour)), np.empty(len(behaviour))
    for where, rows in batches(behaviour, batch_size_for(model, behaviour, batch_size)):
        mask, looked = _mask(model, rows, layer, relation, role)
        with torch.no_grad():
            plain = rows.end_logits(model.run(rows.clean).logits)
            cut = rows.end_logits(model.run(rows.clean, taps=[Cut(site, index, mask)]).logits)
        reference = plain if measure.needs_reference else None
        if own and looked is not None:
            before, after = (_log_probability(each, looked) for each in (plain, cut))
        else:
            before, after = (measure(each, rows, reference=reference) for each in (plain, cut))
        clean[where], fell[where] = before.cpu().numpy(), (before - after).cpu().numpy()
    if np.isnan(fell).all():
        raise InputError(f"No prompt has what {relation!r} looks at; give other prompts.")
    found = bootstrap(fell)
    return Confirmed(
        head=(layer, index), relation=relation, clean=float(np.nanmean(clean)),
        change=float(found.mean), low=float(found.low), high=float(found.high),
        expected=0 if role is None else role.sign,
    )  # fmt: skip


def _role(name: str, behaviour: Behaviour) -> Role | None:
    """The role of a name; None for a relation."""
    if name in KINDS:
        return None
    if name not in ROLES:
        known = ", ".join([*KINDS, *ROLES])
        raise InputError(f"There is no relation or role {name!r}; choose one of {known}.")
    reason = why_not(ROLES[name], behaviour)
    if reason is not None:
        raise InputError(reason)
    return ROLES[name]


def _mask(
    model: Model, rows: Behaviour, layer: int, relation: str, role: Role | None
) -> tuple[Mask, Looked | None]:
    """What is taken away, and what the role looks at."""
    tokens = rows.clean
    if role is None:
        known = known_relation(relation, model)
        return known.mask(tokens, texts_of(model, tokens) if known.texts else []), None
    looked = role.look(rows, predicted_before(model, rows, layer) if role.predicts else None)
    return from_end(rows, looked.keys), looked


def from_end(rows: Behaviour, keys: Tensor) -> Mask:
    """The mask that holds only what `end` sees of some keys."""
    mask = torch.zeros(*keys.shape, keys.shape[1], dtype=torch.bool)
    mask[torch.arange(len(rows)), rows.clean.labels["end"]] = keys
    return mask


def _log_probability(logits: Tensor, looked: Looked) -> Tensor:
    """Of the predicted tokens; NaN where there is none."""
    ids = looked.target.ids.to(logits.device)
    found = logits.float().log_softmax(dim=-1).gather(1, ids)[:, 0]
    return found.masked_fill(~looked.keys.any(dim=1).to(found.device), torch.nan)


class Cut:
    """The tap that takes some weights out of one head's pattern."""

    def __init__(self, site: Site, head: int, mask: Mask) -> None:
        self.site, self.head, self.mask = site, head, mask

    def wants(self, site: Site) -> bool:
        """One layer's patterns."""
        return site == self.site

    def __call__(self, site: Site, x: Tensor, now: Passing) -> Tensor:
        """The patterns with these weights at zero."""
        changed = x.clone()
        changed[:, self.head] = x[:, self.head].masked_fill(self.mask.to(x.device), 0.0)
        return changed
