"""The attribution stage: what each part of the model adds to the logit difference directly."""

from __future__ import annotations

from cutaway.observe import Attribution, attribute
from cutaway.study.blackbox import chosen
from cutaway.study.stage import Inputs


def split(inputs: Inputs) -> Attribution:
    """Attribute the clean prompts' logit difference; the parts are checked to add up to it."""
    behaviour, wanted = inputs.behaviour, inputs.settings.lens_examples
    rows = behaviour.rows(chosen(len(behaviour), wanted, inputs.settings.seed))
    return attribute(inputs.model, rows, progress=inputs.tick)
