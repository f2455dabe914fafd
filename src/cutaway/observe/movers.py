"""Which heads play a role in a behaviour: where `end` looks, what comes of it, and by chance.

For each role (see `roles`) that the behaviour's prompts allow, and each head:

1. score: the attention from `end` to where the role looks;
2. effect: what the head does with it. Direct attribution of the logits that the role names, by
   source position (`inside`), and for S-inhibition, the name movers' attention at `end` to the
   answer less that to wrong answers, with the head as it is less with the head's attention to the
   second mention cut out: all that comes of the cut, along every path;
3. chance: both again on the prompts with their tokens shuffled, at the same places;
4. p: sign flips of what is more than chance, over prompts, corrected by the largest statistic of
   all heads, roles, scores and effects. A head plays a role when its score and its effect are both
   sure, have the right sign (the effect by itself, too), and the score is `least` above chance.

The name movers that S-inhibition is measured on are those found here, negative ones too, as in Wang
et al. 2022; where there are none, nothing can turn them. Its effect is measured only for heads that
attend enough to count (and is NaN elsewhere). Deviation: they patch the head from other prompts
along paths into the movers' queries; we cut one attention weight and hold nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours.behaviour import Behaviour
from cutaway.errors import InputError
from cutaway.measure.batches import Progress, batch_size_for, batches
from cutaway.measure.result import provenance
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.model.tokens import Tokens
from cutaway.observe.aim import AtEnd, before_norm, unembedded
from cutaway.observe.confirming import Cut, from_end
from cutaway.observe.detectors import LEVEL, Detected, corrected
from cutaway.observe.inside import Sources, Weighing
from cutaway.observe.relations import LEAST, shuffled
from cutaway.observe.roles import (
    ROLES,
    Keys,
    Looked,
    Role,
    mean_direction,
    occurrences,
    predicted_by,
    why_not,
)

_MOVERS = ("name mover", "negative name mover")
_NAMES = ("values", "effect", "chance", "effect_chance")
Arrays = dict[str, np.ndarray]
Place = tuple[int, int]


def detect_roles(
    model: Model,
    behaviour: Behaviour,
    *,
    roles: Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Detected:
    """Score every head in every role that the behaviour's clean prompts allow, or in those named.

    `left_out` of the result says which roles the prompts do not allow, and why. Raises `InputError`
    for a role that does not exist, for one that was named and is not allowed, and when none is.
    """
    asked = _asked(roles)
    size = batch_size_for(model, behaviour, batch_size)
    excuses = {name: reason for name in ROLES if (reason := why_not(ROLES[name], behaviour))}
    known = [role for name, role in ROLES.items() if name not in excuses]
    found = _measured(model, behaviour, known, size, seed, progress)
    if "S-inhibition" in asked and "S-inhibition" not in excuses:
        movers = _movers(found, known, seed)
        if movers:
            _steer(model, behaviour, movers, found, known, size, seed)
        else:
            excuses["S-inhibition"] = (
                "S-inhibition: no name mover was found whose attention a head could turn."
            )
    for number, role in enumerate(known):
        if role.name not in excuses and np.isnan(found["values"][:, number]).all():
            excuses[role.name] = f"{role.name}: no prompt of {behaviour.name!r} has {role.needs}."
    left_out = [excuses[name] for name in asked if name in excuses]
    if left_out and (roles is not None or len(left_out) == len(asked)):
        raise InputError(" ".join(left_out) + " Give other prompts.")
    kept = [n for n, role in enumerate(known) if role.name in asked and role.name not in excuses]
    chosen = [known[number] for number in kept]
    arrays = {name: found[name][:, kept] for name in _NAMES}
    record = provenance(model, behaviour, {"method": "roles of heads", "seed": seed})
    arrays["p"] = _p(arrays, chosen, seed)
    return Detected.of(arrays, [role.name for role in chosen], record, left_out)


def _asked(roles: Sequence[str] | None) -> list[str]:
    for name in roles or ():
        if name not in ROLES:
            raise InputError(f"There is no role {name!r}; choose one of {', '.join(ROLES)}.")
    if roles is not None and not roles:
        raise InputError(f"No role was named; name some of {', '.join(ROLES)}, or leave it out.")
    return list(ROLES if roles is None else roles)


def _p(found: Mapping[str, np.ndarray], roles: Sequence[Role], seed: int) -> np.ndarray:
    """(role, layer, head): of score and effect, the larger p; 1 where a sign is wrong.

    An effect must have its role's sign by itself, and not only beside chance.
    """
    excess = found["values"] - found["chance"]
    does = found["effect"] - found["effect_chance"]
    both = corrected(np.stack([excess, does], axis=1), seed)
    signs = np.array([role.sign for role in roles])[:, None, None]
    effects = (np.nansum(each, axis=0) * signs > 0 for each in (does, found["effect"]))
    right = np.logical_and.reduce([np.nansum(excess, axis=0) > 0, *effects])
    return np.where(right | np.isnan(both).any(axis=0), both.max(axis=0), 1.0)


# ── scores, and effects on logits ────────────────────────────────────────────────────────────


def _measured(
    model: Model, behaviour: Behaviour, roles: Sequence[Role], size: int, seed: int,
    progress: Progress | None,
) -> Arrays:  # fmt: skip
    """(example, role, layer, head) of everything but S-inhibition's effect."""
    reader = _Reader(model)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(behaviour), len(roles), model.n_layers, model.n_heads)
    found = {name: np.full(shape, np.nan) for name in _NAMES}
    for where, rows in batches(behaviour, size, progress):
        clean = _Seen(reader, rows, rows.clean)
        looked = [clean.looked(role) for role in roles]
        mixed = _Seen(reader, rows, shuffled(rows.clean, generator))
        for number, role in enumerate(roles):
            for layer, one in enumerate(looked[number]):
                for seen, (score, does) in zip(
                    (clean, mixed), (_NAMES[:2], _NAMES[2:]), strict=True
                ):
                    found[score][where, number, layer] = seen.attention(layer, one)
                    if not role.steers:
                        found[does][where, number, layer] = seen.written(layer, one)
    return found


class _Reader:
    """What is read of a model once."""

    def __init__(self, model: Model) -> None:
        self.model, self.sources = model, Sources(model)
        self.mean = mean_direction(model)
        layers = range(model.n_layers)
        self.sites = [
            *self.sources.sites, *(Site("resid_pre", layer) for layer in layers),
            Site("resid_final"),
        ]  # fmt: skip


class _Seen:
    """One run, as `end` sees it."""

    def __init__(self, reader: _Reader, rows: Behaviour, tokens: Tokens) -> None:
        end, width = tokens.labels["end"], tokens.ids.shape[1]
        self.reader, self.rows = reader, rows
        self.weighing = Weighing(end, torch.arange(width).expand(len(rows), width))
        tap = AtEnd(reader.sites, end)
        reader.model.run(tokens, taps=[tap, self.weighing])
        self.kept = tap.kept

    @torch.no_grad()
    def looked(self, role: Role) -> list[Looked]:
        """Where the role looks, layer by layer."""
        model = self.reader.model
        if not role.predicts:
            return [role.look(self.rows, None)] * model.n_layers
        streams = [self.kept[Site("resid_pre", layer)] for layer in range(1, model.n_layers)]
        later = [role.look(self.rows, predicted_by(model, stream)) for stream in streams]
        return [role.look(self.rows, None), *later]

    def attention(self, layer: int, looked: Looked) -> np.ndarray:
        """(batch, head): from `end` to where the role looks."""
        weights = self.weighing.weights[layer]
        found = (weights * looked.keys.to(weights.device)[..., None]).sum(dim=1)
        return _where_any(found, looked.keys)

    @torch.no_grad()
    def written(self, layer: int, looked: Looked) -> np.ndarray:
        """(batch, head): what the head takes from there, in the role's logits."""
        reader = self.reader
        u = unembedded(reader.model, looked.target)
        u = u - reader.mean.to(u) if looked.centred else u
        g = before_norm(reader.model, u, self.kept[Site("resid_final")])
        z = self.kept[Site("z", layer)]
        share, _ = reader.sources.shares(layer, z, self.weighing, g)
        found = (share * looked.counted.to(share.device)[:, None]).sum(dim=2)
        return _where_any(found, looked.keys)


def _where_any(found: Tensor, keys: Keys) -> np.ndarray:
    """The numbers of examples that have a key; NaN for the others."""
    none = ~keys.any(dim=1, keepdim=True).to(found.device)
    return found.masked_fill(none, torch.nan).cpu().numpy()


# ── effects on the name movers ───────────────────────────────────────────────────────────────


def _movers(found: Mapping[str, np.ndarray], roles: Sequence[Role], seed: int) -> list[Place]:
    """The name movers, negative ones too, as their own arrays show them."""
    kept = [number for number, role in enumerate(roles) if role.name in _MOVERS]
    if not kept:
        return []
    arrays = {name: found[name][:, kept] for name in _NAMES}
    sure = _p(arrays, [roles[number] for number in kept], seed) < LEVEL
    enough = np.nanmean(arrays["values"] - arrays["chance"], axis=0) >= LEAST
    return sorted({(int(at[1]), int(at[2])) for at in np.argwhere(sure & enough)})


def _steer(
    model: Model, behaviour: Behaviour, movers: Sequence[Place], found: Arrays,
    roles: Sequence[Role], size: int, seed: int,
) -> None:  # fmt: skip
    """Fill in what S-inhibition does to the name movers, for the heads that attend enough."""
    number = next(n for n, role in enumerate(roles) if role.steers)
    excess = np.nanmean(found["values"][:, number] - found["chance"][:, number], axis=0)
    last = max(layer for layer, _ in movers)
    heads = [(int(at[0]), int(at[1])) for at in np.argwhere(excess >= LEAST) if at[0] < last]
    generator = torch.Generator().manual_seed(seed)
    for where, rows in batches(behaviour, size):
        keys = roles[number].look(rows, None).keys
        for tokens, name in ((rows.clean, "effect"), (shuffled(rows.clean, generator),
                                                     "effect_chance")):  # fmt: skip
            before = _turned(model, rows, tokens, movers, [])
            for layer, head in heads:
                cut = Cut(Site("pattern", layer), head, from_end(rows, keys))
                after = _turned(model, rows, tokens, movers, [cut])
                reached = [n for n, mover in enumerate(movers) if mover[0] > layer]
                change = (before - after)[:, reached].mean(axis=1)
                found[name][where, number, layer, head] = np.where(
                    keys.any(dim=1).numpy(), change, np.nan
                )


def _turned(
    model: Model, rows: Behaviour, tokens: Tokens, movers: Sequence[Place], cuts: Sequence[Cut]
) -> np.ndarray:
    """(batch, mover): attention from `end` to the answer, less that to wrong answers."""
    right = occurrences(rows, rows.answers).float()
    wrong = occurrences(rows, rows.wrong_answers).float()
    places = torch.arange(tokens.ids.shape[1]).expand(len(rows), -1)
    weighing = Weighing(tokens.labels["end"], places)
    model.run(tokens, taps=[*cuts, weighing])
    columns: list[Tensor] = []
    for layer, head in movers:
        weights = weighing.weights[layer][:, :, head]
        columns.append((weights * (right - wrong).to(weights.device)).sum(dim=1).cpu())
    return torch.stack(columns, dim=1).numpy()
