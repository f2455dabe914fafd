"""The lens stage: what each layer would answer, on clean and on corrupt prompts."""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.observe import Lens, logit_lens
from cutaway.study.blackbox import chosen
from cutaway.study.places import places
from cutaway.study.stage import Inputs, within


@dataclass(frozen=True, kw_only=True)
class Lenses:
    """The logit lens on both kinds of prompt."""

    clean: Lens
    """Clean prompts, at every place."""
    corrupt: Lens
    """Corrupt prompts, with the clean prompts' answers."""


def read(inputs: Inputs) -> Lenses:
    """Read every layer's stream at the behaviour's places."""
    behaviour, wanted = inputs.behaviour, inputs.settings.lens_examples
    rows = behaviour.rows(chosen(len(behaviour), wanted, inputs.settings.seed))
    found = [
        logit_lens(
            inputs.model, rows, positions=places(behaviour), prompts=prompts,
            progress=within(inputs.tick, part, 2),
        )
        for part, prompts in enumerate(("clean", "corrupt"))
    ]  # fmt: skip
    return Lenses(clean=found[0], corrupt=found[1])
