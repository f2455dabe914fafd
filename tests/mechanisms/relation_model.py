"""A model whose recall is built by hand: capital(c) = c + one vector that an MLP writes.

"capital c3" → "k3", "so c3" → "c3". Layer 0's first head tells every later position whether
"capital" was said; where it was, the first neuron of layer 1's MLP writes the same vector f,
whatever the country. A country's logit reads its own direction; a capital's reads half of its
country's direction, and f. Every direction has its negative beside it, so that norms only scale.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from cutaway.behaviours import Behaviour
from cutaway.model import Model, open_model
from cutaway.model.tiny import tiny

MANY = 6
WORDS = (
    *("capital", "so"), *(f"c{n}" for n in range(MANY)), *(f"k{n}" for n in range(MANY)),
    *(f"other{n}" for n in range(46)),
)  # fmt: skip
_SAID, _TOLD, _F = 6, 7, 8


def tokenizer() -> PreTrainedTokenizerFast:
    plain = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="other0"))
    plain.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="other0", pad_token="other1")


def untrained() -> Model:
    """The same shape with random weights."""
    hf = tiny("gpt2", n_layer=3, vocab_size=len(WORDS), tie_word_embeddings=False)
    return open_model(hf, tokenizer=tokenizer())


def of_family(family: str) -> Model:
    """A random model of any family with the same words."""
    return open_model(tiny(family, vocab_size=len(WORDS)), tokenizer=tokenizer())


def built() -> Model:
    """The model that the module describes."""
    model = untrained()
    weights = dict(model.hf.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            weight.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
        embed, head = weights["transformer.wte.weight"], weights["lm_head.weight"]
        embed[0], embed[1] = _direction(_SAID), _direction(9)
        for n in range(MANY):
            country = WORDS.index(f"c{n}")
            embed[country] = head[country] = _direction(n)
            head[WORDS.index(f"k{n}")] = 0.5 * _direction(n) + _direction(_F)
        value = weights["transformer.h.0.attn.c_attn.weight"]
        value[:, 64] = _direction(_SAID)
        weights["transformer.h.0.attn.c_proj.weight"][0] = _direction(_TOLD)
        weights["transformer.h.1.mlp.c_fc.weight"][:, 0] = 4 * _direction(_TOLD)
        weights["transformer.h.1.mlp.c_fc.bias"][0] = -4.0
        weights["transformer.h.1.mlp.c_proj.weight"][0] = 0.5 * _direction(_F)
    return model


def pairs(model: Model) -> Behaviour:
    """Every country's capital; the corrupt prompt asks for the next country's."""
    others = [(n + 1) % MANY for n in range(MANY)]
    return Behaviour.from_pairs(
        [f"capital c{n}" for n in range(MANY)],
        [f"capital c{n}" for n in others],
        answers=[f"k{n}" for n in range(MANY)],
        wrong_answers=[f"k{n}" for n in others],
        labels={"COUNTRY": [1] * MANY},
        tokenizer=model.tokenizer,
        name="built capitals",
    )


def _direction(at: int) -> torch.Tensor:
    found = torch.zeros(32)
    found[at], found[16 + at] = 1.0, -1.0
    return found
