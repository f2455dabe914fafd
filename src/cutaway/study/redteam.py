"""The red-team stage: what can be said against the finding, tried.

1. Attacks on the circuit: other prompts, ablations, metrics and seeds, and the circuits of other
   behaviours, which must not do it (`attacks`).
2. Backups: the strongest head is corrupted, once with everything after it held as it was (its
   direct effect) and once with the model free to react (its total effect). What the model makes
   good is self-repair; the head must matter in spite of it.
3. Boring explanations (`boring`).
4. Controls, where the same search must find nothing (`nothing`).

All p-values are corrected together (`verdict`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cutaway.behaviours import bootstrap
from cutaway.circuits import Masked
from cutaway.errors import CutawayError
from cutaway.measure.result import provenance
from cutaway.observe import Attribution
from cutaway.patch import path_patch
from cutaway.study.attacks import Make, Target, attacks
from cutaway.study.boring import explanations
from cutaway.study.discovery import Discovered, graded, sides
from cutaway.study.nothing import nothing
from cutaway.study.patching import Patching, patched
from cutaway.study.stage import Inputs
from cutaway.study.verdict import Attack, RedTeam, settled


def attack(inputs: Inputs) -> RedTeam:
    """Make every attack, and decide them together."""
    seed, made = inputs.settings.seed, list[Attack]()
    planned = list(_planned(inputs))
    for kind, name, make in planned:
        try:
            found = make()
        except CutawayError as error:
            found = Attack(kind=kind, name=name, found=_in_short(error))
        made.append(replace(found, kind=kind, name=name))
        inputs.tick(len(made), len(planned))
    return RedTeam(
        attacks=settled(made, seed=seed),
        provenance=provenance(
            inputs.model, inputs.behaviour, {"method": "red team", "seed": seed}
        ),
    )  # fmt: skip


def _in_short(error: CutawayError) -> str:
    """What an error says; of a list of problems its heading and the first."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


def _planned(inputs: Inputs) -> Iterator[tuple[str, str, Make]]:
    settings = inputs.settings
    train, held_out = sides(inputs)
    metric = graded(train) or train.metric
    few = min(settings.attack_examples, len(held_out))
    target = Target(
        on=Masked(inputs.model), circuit=inputs.of(Discovered).circuit,
        held_out=held_out.rows(range(few)), metric=metric, n=settings.attack_examples,
        seed=settings.seed,
    )  # fmt: skip
    yield from attacks(target)
    yield "backups", "self-repair after the strongest head", lambda: _backups(inputs)
    yield from explanations(inputs.model, inputs.behaviour)
    yield from nothing(
        inputs.model, train, held_out, metric=metric, kept=settings.kept, seed=settings.seed
    )


def _backups(inputs: Inputs) -> Attack:
    """The strongest head's total effect, beside its direct one."""
    heads = inputs.of(Attribution).heads.mean("example").to_numpy()
    layer, head = (int(at) for at in np.unravel_index(int(heads.argmax()), heads.shape))
    rows, noised = patched(inputs), inputs.of(Patching).heads_noise
    along = path_patch(inputs.model, rows, [f"head_out.{layer}.{head}"], "logits", mode="noise")
    direct = -along.effect.to_numpy().reshape(-1)
    total = -noised.effect.sel(layer=layer, head=head).to_numpy()
    lost, whole, repaired = (bootstrap(each) for each in (direct, total, direct - total))
    made_good = float(repaired.mean) > 0
    reaction = "make good" if made_good else "lose in addition"
    ends = sorted(abs(float(end)) for end in (repaired.low, repaired.high))
    return Attack(
        kind="", name="", effect=float(whole.mean), low=float(whole.low), high=float(whole.high),
        unit=noised.metric, margins=total,
        found=f"corrupting head {layer}.{head}’s direct path takes {float(lost.mean):.2f}, "
        f"corrupting it for all later parts too takes {float(whole.mean):.2f}: in reaction these "
        f"{reaction} {abs(float(repaired.mean)):.2f} ({ends[0]:.2f} to {ends[1]:.2f})",
    )  # fmt: skip
