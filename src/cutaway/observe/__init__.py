"""Reading without touching: logit lens, direct logit attribution, attention."""

from cutaway.observe.attention import AttentionTo, Patterns, attention_patterns, attention_to
from cutaway.observe.attribution import attribute
from cutaway.observe.contributions import Attribution, AttributionError
from cutaway.observe.lens import Lens, logit_lens

__all__ = [
    "AttentionTo",
    "Attribution",
    "AttributionError",
    "Lens",
    "Patterns",
    "attention_patterns",
    "attention_to",
    "attribute",
    "logit_lens",
]
