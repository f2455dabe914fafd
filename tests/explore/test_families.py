"""Answers on other families: normed attention, parallel layers, mixtures, soft caps."""

import pytest
import torch

from cutaway.explore.answer import answer
from cutaway.explore.question import question
from cutaway.explore.runs import Runs, Stop
from cutaway.model import Model, ablate, open_model
from cutaway.model.tiny import tiny

PROMPT = "When Mary and John went to the store"
CHANGES = [
    {"do": "ablate", "site": "z.1.2", "position": 4},
    {"do": "patch", "site": "mlp_out.0", "prompt": "When Tom and Kate went to the store"},
    {"do": "steer", "site": "resid_post.0", "token": 20, "strength": 0.5},
]


@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "olmo2", "gptj", "bloom", "mixtral", "cohere", "granite"]
)
def test_an_answer_is_the_model_s(family: str, model: Model) -> None:
    other = open_model(tiny(family, vocab_size=model.d_vocab), tokenizer=model.tokenizer)
    neurons = None if "mlp_post" in other.missing() else 1
    asked = {"prompt": PROMPT, "neurons": neurons, "head": [1, 2], "changes": CHANGES[:1]}
    found = answer(Runs(other), question(other, asked), Stop())
    expected = other.run(PROMPT, edits=ablate("z.1.2", position=4)).last_logits[0]
    for each in found["next"]:
        torch.testing.assert_close(
            torch.tensor(each["after"]["logit"]), expected[each["id"]], atol=1e-4, rtol=1e-4
        )
    assert "stream" not in found["parts"]["shows"]
    assert len(found["neurons"]) == (0 if neurons is None else 10)
    whole = answer(Runs(other), question(other, asked | {"changes": CHANGES}), Stop())
    assert whole["divergence"] > 0
    assert len(whole["lens"]["cells"]) == other.n_layers + 1
