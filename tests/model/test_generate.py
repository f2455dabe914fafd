"""Generation under interventions: with a cache, as if every step were run afresh."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cutaway.errors import InputError
from cutaway.model import Model, ablate, add, open_model, project_out, replace, scale
from cutaway.model.tiny import tiny
from cutaway.model.tokens import Tokens, pad
from tests.model.variants import VARIANTS

Open = Callable[[str], Model]
VECTOR = torch.randn(32, generator=torch.Generator().manual_seed(0))


def step_by_step(model: Model, ids: torch.Tensor, edits: list, new: int) -> torch.Tensor:  # type: ignore[type-arg]
    """Greedy generation that runs everything again at each step, without a cache."""
    for _ in range(new):
        logits = model.run(ids, edits=edits).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[:, -new:]


def without_end(model: Model) -> None:
    """A random model would stop wherever it happens to say so."""
    model.hf.generation_config.eos_token_id = None


@pytest.mark.parametrize("name", VARIANTS)
def test_edits_apply_at_every_step(opened: Open, name: str, ids: torch.Tensor) -> None:
    model = opened(name)
    without_end(model)
    edits = [
        add("resid_post.0", 3 * VECTOR),
        scale("z.1.1", 0.3),
        ablate("pattern.0", head=0),
        project_out("mlp_out.1", VECTOR),
    ]
    expected = step_by_step(model, ids, edits, 6)
    assert torch.equal(model.generate(ids, edits=edits, max_new_tokens=6).ids, expected)
    plain = model.generate(ids, max_new_tokens=6).ids
    assert torch.equal(plain, step_by_step(model, ids, [], 6))


def test_positions_mean_those_of_the_prompt(opened: Open, ids: torch.Tensor) -> None:
    model = opened("llama-grouped")
    without_end(model)
    labels = {"here": torch.tensor([2, 5, 7])}
    tokens = Tokens(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), labels=labels)
    edits = [replace("resid_pre.1", 2 * VECTOR, position="here"), ablate("attn_out.0", position=3)]
    found = model.generate(tokens, edits=edits, max_new_tokens=5).ids
    fixed = [
        replace("resid_pre.1", 2 * VECTOR, row=row, position=int(labels["here"][row]))
        for row in range(3)
    ]
    expected = step_by_step(model, ids, [*fixed, ablate("attn_out.0", position=3)], 5)
    assert torch.equal(found, expected)


def test_prompts_of_different_lengths_generate_as_alone(opened: Open) -> None:
    for name in ("gpt2", "llama-grouped", "bloom", "gemma2"):
        model = opened(name)
        without_end(model)
        rows = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15, 16, 17]]
        batch = pad(rows, pad_id=0, labels={"here": [1, 2, 3]})
        edits = [add("mlp_out.0", VECTOR, position="here"), add("resid_post.1", VECTOR)]
        together = model.generate(batch, edits=edits, max_new_tokens=5).ids
        for row, prompt in enumerate(rows):
            alone = pad([prompt], pad_id=0, labels={"here": [row + 1]})
            assert torch.equal(
                model.generate(alone, edits=edits, max_new_tokens=5).ids[0], together[row]
            )


def test_beams_agree_with_transformers_and_carry_edits_along(
    opened: Open, ids: torch.Tensor
) -> None:
    model = opened("gpt2")
    without_end(model)
    found = model.generate(ids, num_beams=3, max_new_tokens=5).ids
    bare = model.hf.generate(
        ids, attention_mask=torch.ones_like(ids), num_beams=3, max_new_tokens=5, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(found, bare[:, 9:])
    row = [add("resid_post.1", 5 * VECTOR, row=1)]
    edited = model.generate(ids, num_beams=3, max_new_tokens=5, edits=row).ids
    everywhere = model.generate(
        ids, num_beams=3, max_new_tokens=5, edits=[add("resid_post.1", 5 * VECTOR)]
    ).ids
    assert torch.equal(edited[[0, 2]], found[[0, 2]])
    assert torch.equal(edited[1], everywhere[1])


def test_sampling_is_seeded_and_leaves_the_random_state_alone(
    opened: Open, ids: torch.Tensor
) -> None:
    model = opened("gpt2")
    before = torch.random.get_rng_state()
    draws = [
        model.generate(ids, temperature=1.5, top_k=20, top_p=0.9, seed=seed, max_new_tokens=8).ids
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(before, torch.random.get_rng_state())


def wordy() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(96)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0")


def test_text_streams_as_it_is_made() -> None:
    model = open_model(tiny("gpt2"), tokenizer=wordy())
    without_end(model)
    pieces: list[str] = []
    made = model.generate("w5 w6 w7", max_new_tokens=4, stream=pieces.append)
    assert "".join(pieces).split() == made.texts[0].split()
    assert len(made.texts[0]) > 0
    assert model.single_token("w7") == 7
    assert model.token_strings("w5 w6") == [["w5", "w6"]]
    with pytest.raises(InputError, match="single prompt"):
        model.generate(["w5", "w6"], stream=pieces.append)


def test_what_cannot_be_generated_is_refused(opened: Open, ids: torch.Tensor) -> None:
    model = opened("gpt2")
    bad = [
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"top_k": 5}, "give a temperature above 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must lie above 0"),
        ({"num_beams": 0}, "must be at least 1"),
        ({"max_new_tokens": 60}, "9 tokens and 60 new ones exceed the 64"),
    ]
    for options, message in bad:
        with pytest.raises(InputError, match=message):
            model.generate(ids, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="opened without a tokenizer"):
        model.generate("hello")
