"""Memorised strings: the identities that it rests on, the shipped model's number, and a model that
knows nothing."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.mechanisms import relation_model

import cutaway
from cutaway.errors import InputError
from cutaway.mechanisms import Memorised, memorised
from cutaway.mechanisms.ablating import Means, losses
from cutaway.mechanisms.knowledge import NeuronMeans, shares
from cutaway.model import Model, open_model
from cutaway.model.tiny import tiny
from cutaway.model.tokens import Tokens, pad

torch.set_num_threads(1)
OTHER = (
    *(f"The capital of {land} is" for land in ("France", "Spain", "Ghana", "Cuba", "Egypt")),
    *(f"{name} went to the store and gave a drink to" for name in ("Mary", "John", "Anna")),
)


@cache
def shipped() -> Model:
    return cutaway.open()


def random_texts(model: Model, n: int, seed: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, model.d_vocab, (n, 7), generator=generator).tolist()
    return pad([row[: 7 - n % 2] for n, row in enumerate(ids)], pad_id=0)


def test_the_number_is_found_and_can_be_taken_out(tmp_path: Path) -> None:
    model = shipped()
    number = cutaway.behaviour("phone-number", model, n=12)
    found = memorised(model, number, other=OTHER, draws=3)
    assert bool(found.needed.notnull().all())
    assert found.held_out
    assert float(found.known.sel(state="before").mean()) == 1
    assert float(found.known.sel(state="after").mean()) < 0.7
    assert found.selective
    assert float(found.random_memory.max()) < 0.1
    again = Memorised.load(found.save(tmp_path / "memorised.nc"))
    assert str(again) == str(found)
    assert again.sites.equals(found.sites)
    assert found.plot().table is not None


def test_the_control_is_somebody_else() -> None:
    """After three groups of digits only the owner tells what follows; after four, nearly any does:
    the model has read them of nobody else."""
    model = shipped()
    shares: dict[str, float] = {}
    for shown in ("3", "4"):
        number = cutaway.behaviour("phone-number", model, n=5, shown=shown)
        found = memorised(model, number, other=OTHER[:2], draws=1, neurons=1)
        assert bool((found.recovered.isel(prefix=-1).dropna("text") == 1).all())
        for row in range(5):  # with the whole prompt, as the model itself continues it
            length = int(number.corrupt.lengths[row]) - 1
            logits = model.run(number.corrupt.rows([row])).last_logits
            same = int(logits.argmax()) == number.answers[row][0]
            assert bool(found.control.sel(prefix=length)[row] == 1) == same
        shares[shown] = float((found.control == 1).any("prefix").mean())
    assert shares["3"] < shares["4"]


def test_what_is_recovered_is_what_the_model_generates() -> None:
    model = shipped()
    text = "The phone number of the lighthouse is 01 99 00 64 38"
    found = memorised(model, text, other=OTHER, suffix=2, draws=1, neurons=5)
    ids = model.tokens(text).row_ids(0)
    for length in (3, 5, 8):
        prompt = torch.tensor([[ids[0], *ids[-length - 2 : -2]]])
        same = model.generate(prompt, max_new_tokens=2).ids[0].tolist() == ids[-2:]
        assert bool(found.recovered.sel(prefix=length)[0] == 1) == same
    assert not found.held_out
    assert "the same text" in str(found)


def test_a_model_that_knows_nothing() -> None:
    model = relation_model.untrained()
    texts = [" ".join(f"other{(7 * n + k * k) % 40}" for k in range(6)) for n in range(6)]
    found = memorised(model, texts, other=texts[::-1], suffix=2, neurons=4, draws=3)
    assert int(found.needed.notnull().sum()) == 0
    assert "0 of 6 texts" in str(found)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_shares_add_up_to_what_is_lost(family: str) -> None:
    """Completeness of integrated gradients: the shares' sum is the fall when all go together."""
    model = open_model(tiny(family))
    texts, other = (random_texts(model, 5, seed) for seed in (0, 1))
    means = NeuronMeans.of(model, other)
    wanted = texts.mask.clone()
    wanted[:, 0] = False
    every = [(layer, n) for layer in range(2) for n in range(48)]
    lost = losses(model, texts, means.edits(every)) - losses(model, texts)
    total = float(shares(model, means, texts, wanted).sum())
    assert total == pytest.approx(float(lost.mean()), rel=0.05, abs=0.01)


def test_means_are_over_real_tokens() -> None:
    model = open_model(tiny("gpt2"))
    tokens = random_texts(model, 5, 0)
    run = model.run(tokens, keep=["z.1", "mlp_post.0", "mlp_out.1"])
    means, neurons = Means.of(model, tokens), NeuronMeans.of(model, tokens)
    for site, values in {**means.values, **neurons.values}.items():
        if site in run.sites:
            torch.testing.assert_close(values, run[site][tokens.mask].mean(0))
    edits = [*means.edits(["head_out.1.2", "mlp_out.1"]), *neurons.edits([(0, 3)])]
    after = model.run(tokens, keep=["z.1", "mlp_post.0", "mlp_out.1"], edits=edits)
    for name, index in (("z.1", 2), ("mlp_post.0", 3)):
        kept = after[name][:, :, index]
        torch.testing.assert_close(kept - kept[:1, :1], torch.zeros_like(kept))
    assert torch.equal(after["z.1"][:, :, 1], model.run(
        tokens, keep=["z.1"], edits=neurons.edits([(0, 3)]))["z.1"][:, :, 1])  # fmt: skip


def test_losses_are_the_models_own() -> None:
    model = open_model(tiny("gpt2"))
    ids = torch.randint(3, 90, (3, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [float(model.hf(row[None], labels=row[None]).loss) for row in ids]
    np.testing.assert_allclose(losses(model, model.tokens(ids)), expected, rtol=1e-4)


def test_what_is_refused() -> None:
    model = relation_model.untrained()
    with pytest.raises(InputError, match="two other texts"):
        memorised(model, "so c1 k1", other=["so c1 c2"])
    with pytest.raises(InputError, match="text of 3 tokens"):
        memorised(model, "so c1 k1", other=["so c1 c2", "so c1 c3"], suffix=2)
    with pytest.raises(InputError, match="count from 1"):
        memorised(model, "so c1 k1", other=["so c1 c2", "so c1 c3"], draws=0)
