"""Reading without touching: logit lens, direct logit attribution, attention, weights."""

from cutaway.observe.attention import AttentionTo, Patterns, attention_patterns, attention_to
from cutaway.observe.attribution import attribute
from cutaway.observe.contributions import Attribution, AttributionError
from cutaway.observe.detectors import Confirmed, Detected, confirm, detect
from cutaway.observe.factored import Factored, WeightsError
from cutaway.observe.inside import Shares, attribute_neurons, attribute_sources
from cutaway.observe.lens import Lens, logit_lens
from cutaway.observe.translators import LensError, Translators, jacobian_lens, tuned_lens
from cutaway.observe.weights import Composition, Copying, composition, copying, ov, qk, virtual

__all__ = [
    "AttentionTo",
    "Attribution",
    "AttributionError",
    "Composition",
    "Confirmed",
    "Copying",
    "Detected",
    "Factored",
    "Lens",
    "LensError",
    "Patterns",
    "Shares",
    "Translators",
    "WeightsError",
    "attention_patterns",
    "attention_to",
    "attribute",
    "attribute_neurons",
    "attribute_sources",
    "composition",
    "confirm",
    "copying",
    "detect",
    "jacobian_lens",
    "logit_lens",
    "ov",
    "qk",
    "tuned_lens",
    "virtual",
]
