"""Reading without touching: logit lens, direct logit attribution, attention, weights."""

from cutaway.observe.attention import (
    AttentionBetween,
    AttentionTo,
    Patterns,
    attention_between,
    attention_patterns,
    attention_to,
)
from cutaway.observe.attribution import attribute
from cutaway.observe.confirming import Confirmed, confirm
from cutaway.observe.contributions import Attribution, AttributionError
from cutaway.observe.detectors import Detected, detect
from cutaway.observe.entropy import EntropyNeurons, entropy_neurons
from cutaway.observe.factored import Factored, WeightsError
from cutaway.observe.frequency import FrequencyNeurons, frequency_neurons
from cutaway.observe.inside import Shares, attribute_neurons, attribute_sources
from cutaway.observe.lens import Lens, logit_lens
from cutaway.observe.movers import detect_roles
from cutaway.observe.neurons import (
    DeadNeurons,
    DuplicateNeurons,
    dead_neurons,
    duplicate_neurons,
)
from cutaway.observe.pointer import Moved, value_or_pointer
from cutaway.observe.singular import SingularTokens, singular_tokens
from cutaway.observe.translators import LensError, Translators, jacobian_lens, tuned_lens
from cutaway.observe.trigrams import SkipTrigrams, skip_trigrams
from cutaway.observe.weights import Composition, Copying, composition, copying, ov, qk, virtual
from cutaway.observe.weights_picture import TokenCircuit, draw_weights, token_circuit

__all__ = [
    "AttentionBetween",
    "AttentionTo",
    "Attribution",
    "AttributionError",
    "Composition",
    "Confirmed",
    "Copying",
    "DeadNeurons",
    "Detected",
    "DuplicateNeurons",
    "EntropyNeurons",
    "Factored",
    "FrequencyNeurons",
    "Lens",
    "LensError",
    "Moved",
    "Patterns",
    "Shares",
    "SingularTokens",
    "SkipTrigrams",
    "TokenCircuit",
    "Translators",
    "WeightsError",
    "attention_between",
    "attention_patterns",
    "attention_to",
    "attribute",
    "attribute_neurons",
    "attribute_sources",
    "composition",
    "confirm",
    "copying",
    "dead_neurons",
    "detect",
    "detect_roles",
    "draw_weights",
    "duplicate_neurons",
    "entropy_neurons",
    "frequency_neurons",
    "jacobian_lens",
    "logit_lens",
    "ov",
    "qk",
    "singular_tokens",
    "skip_trigrams",
    "token_circuit",
    "tuned_lens",
    "value_or_pointer",
    "virtual",
]
