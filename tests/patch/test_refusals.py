"""Every bad input to a sweep, and the sentence that refuses it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cutaway.behaviours import Behaviour
from cutaway.errors import CutawayError
from cutaway.model import Model, open_model
from cutaway.model.tiny import tiny
from cutaway.patch import sweep

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("head_outs", {}, r"no kind of site 'head_outs'; did you mean 'head_out'\?"),
    ("head_out.1.2", {}, r"names one part; sweep 'head_out\.1' or 'head_out' by 'head'"),
    ("head_out.9", {"by": "head"}, r"the nearest is 'head_out\.1'"),
    ("resid_pre", {}, "cannot be swept by 'layer', 'head'; choose different ones of 'layer', 'pos"),
    ("k", {}, "choose different ones of 'layer', 'kv_head', 'position'"),
    ("z", {"by": ()}, "cannot be swept by nothing"),
    ("z", {"by": ("layer", "layer")}, "choose different ones of"),
    ("z", {"by": "head"}, "leaves the layer open; add 'layer' to by, or name one"),
    ("z.1", {"by": ("layer", "head")}, r"'z\.1' already names a layer"),
    ("embed", {"by": "layer"}, "choose different ones of 'position'"),
    ("router", {"by": "layer"}, "this model has no mixture of experts"),
    ("z", {"mode": "swap"}, "no mode 'swap'; choose one of denoise, noise, zero, mean, resample"),
    ("z", {"metric": "loss"}, "no metric 'loss'; choose one of logit_diff"),
    ("z", {"positions": ["IO"]}, r"no position labelled 'IO' \(known labels: there, end\)"),
    ("z", {"positions": []}, "positions is empty"),
    ("z", {"positions": [8]}, "the shortest has 6 tokens"),
    ("z", {"batch_size": 0}, "batch_size must be a whole number of 1 or more; found 0"),
    ("z", {"mode": "resample"}, "different lengths, .* name positions, or choose another mode"),
    ("pattern", {"mode": "mean"}, "different lengths, so their 'pattern' has no mean"),
]


@pytest.mark.parametrize(("site", "arguments", "message"), BAD)
def test_bad_input_is_refused_in_a_sentence(
    opened: Callable[[str], Model],
    pairs: Behaviour,
    site: str,
    arguments: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(CutawayError, match=message):
        sweep(opened("gpt2"), pairs, site, **arguments)


def test_a_parallel_family_says_why_it_has_no_middle(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    with pytest.raises(CutawayError, match="attention and MLP read the same stream side by side"):
        sweep(opened("gptj"), pairs, "resid_mid", by="layer")


def test_one_pair_cannot_be_resampled(opened: Callable[[str], Model], pairs: Behaviour) -> None:
    with pytest.raises(CutawayError, match="has a single pair"):
        sweep(opened("gpt2"), pairs.rows([0]), "z", mode="resample")


def test_a_mean_by_key_position_is_refused(
    opened: Callable[[str], Model], pairs: Behaviour
) -> None:
    by = ("layer", "key_position")
    with pytest.raises(CutawayError, match="cannot be set to a mean by key position"):
        sweep(opened("gpt2"), pairs.rows([1, 3]), "pattern", by=by, mode="mean")


def test_activations_that_are_not_finite_are_named(pairs: Behaviour) -> None:
    hf = tiny("llama")
    model = open_model(hf)
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight[3, 5] = torch.inf
    with pytest.raises(CutawayError, match="'mlp_out' of layer 1 of the clean prompt 0 is not fin"):
        sweep(model, pairs, "z")
