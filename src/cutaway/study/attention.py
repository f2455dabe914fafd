"""The attention stage: where the strongest heads look.

The strongest heads are those of the patching stage. Their whole patterns are kept on a few real
examples, and for every head how much `end` attends to each labelled position, on all examples that
the lens reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutaway.observe import AttentionTo, Patterns, attention_patterns, attention_to
from cutaway.study.blackbox import chosen
from cutaway.study.patching import Patching
from cutaway.study.places import places
from cutaway.study.stage import Inputs


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Where heads look."""

    patterns: Patterns
    """The strongest heads on a few examples."""
    to: AttentionTo
    """Every head's attention from `end` to each place."""


def attend(inputs: Inputs) -> Attention:
    """Read the patterns of the heads that patching found strongest."""
    model, behaviour, settings = inputs.model, inputs.behaviour, inputs.settings
    heads = inputs.of(Patching).strongest(settings.heads_shown)
    shown = chosen(len(behaviour), settings.attention_examples, settings.seed)
    patterns = attention_patterns(model, behaviour, heads, examples=shown)
    rows = behaviour.rows(chosen(len(behaviour), settings.lens_examples, settings.seed))
    to = attention_to(model, rows, positions=places(behaviour), progress=inputs.tick)
    return Attention(patterns=patterns, to=to)
