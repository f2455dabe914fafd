"""Detectors: relations by hand, planted heads found, untrained models not, and what heads do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.behaviours import Behaviour
from cutaway.errors import InputError
from cutaway.model import Model, open_model
from cutaway.model.tokens import Tokens
from cutaway.observe import Detected, confirm, detect
from cutaway.observe.detectors import repeated
from cutaway.observe.relations import KINDS, shuffled
from cutaway.organisms import constructed
from cutaway.organisms.compiler import compiled, tokenizer
from cutaway.organisms.program import Program, read


def by_hand(words: list[str], name: str) -> list[list[bool]]:
    """The relations as loops over words."""

    def holds(q: int, k: int) -> bool:
        same = words[k] == words[q]
        return {
            "previous token": k == q - 1,
            "current token": k == q,
            "first token": k == 0 and q > 0,
            "duplicate token": same and k < q,
            "induction": 0 < k < q and words[k - 1] == words[q],
            "same letter": k < q and not same and words[k][0] == words[q][0],
        }[name]

    return [[k <= q and holds(q, k) for k in range(len(words))] for q in range(len(words))]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_relations_are_what_they_say(name: str, left: bool) -> None:
    prompts = [["ab", "ac", "b", "ab", "ad", "ab"], ["x", "x", "y"]]
    words = sorted({word for prompt in prompts for word in prompt})
    width, ids, mask = 6, torch.zeros(2, 6, dtype=torch.long), torch.zeros(2, 6, dtype=torch.bool)
    texts = [[""] * width for _ in prompts]
    for row, prompt in enumerate(prompts):
        first = width - len(prompt) if left else 0
        where = slice(first, first + len(prompt))
        ids[row, where] = torch.tensor([words.index(word) for word in prompt])
        mask[row, where] = True
        texts[row][where] = prompt
    found = KINDS[name].mask(Tokens(ids=ids, mask=mask), texts)
    for row, prompt in enumerate(prompts):
        where = slice(width - len(prompt), width) if left else slice(0, len(prompt))
        assert found[row, where, where].tolist() == by_hand(prompt, name)
        assert int(found[row].sum()) == sum(map(sum, by_hand(prompt, name)))


def duplicates() -> Model:
    """A head that looks at earlier occurrences of its token (and, alike, at itself)."""
    made = Program(words=tuple("abcdefgh"), length=24)
    seen = made.variable("seen", len(made.tokens))
    made.head("a0.h1", query=read(made.token), key=read(made.token), value=read(made.token),
              writes=seen)  # fmt: skip
    made.answers(seen, made.tokens)
    return open_model(compiled(made, seed=0), tokenizer=tokenizer(made))


def test_planted_heads_are_found_and_no_others() -> None:
    organism = constructed("induction", n=4)
    found = detect(organism.model, relations=["previous token", "induction", "duplicate token"])
    named = {(row.relation, row.layer, row.head) for row in found.heads().itertuples()}
    assert ("previous token", 0, 1) in named
    assert ("induction", 1, 0) in named
    assert not {each for each in named if each[0] == "duplicate token"}
    assert found.mean.sel(relation="previous token", layer=0, head=1) > 0.95
    twice = detect(duplicates(), relations=["duplicate token", "induction"])
    table = twice.heads("duplicate token")
    assert (int(table["layer"][0]), int(table["head"][0])) == (0, 1)
    assert table["score"][0] == pytest.approx(0.5, abs=0.02)
    assert twice.heads("induction").empty


def test_scores_and_chance_by_hand(opened: Callable[[str], Model]) -> None:
    model = opened("gpt2")
    rows = repeated(model, n=5, seed=3)
    found = detect(model, rows, relations=["previous token", "induction"], batch_size=2)
    run = model.run(rows.clean, keep=["pattern.1"])
    pattern = run["pattern.1"].detach()
    width = rows.clean.ids.shape[1]
    before = [pattern[:, :, q, q - 1] for q in range(1, width)]
    expected = torch.stack(before).mean(0)
    np.testing.assert_allclose(
        found.values.sel(relation="previous token", layer=1), expected, rtol=1e-5
    )
    even = np.mean([1 / (q + 1) for q in range(1, width)])
    np.testing.assert_allclose(found.chance.sel(relation="previous token"), even, rtol=1e-6)
    half = (width + 1) // 2
    after = torch.stack([pattern[:, :, q, q - half + 1] for q in range(half, width)]).mean(0)
    np.testing.assert_allclose(found.values.sel(relation="induction", layer=1), after, rtol=1e-5)


def test_what_a_head_does_is_confirmed_by_taking_it_out() -> None:
    organism = constructed("induction", n=20)
    lost = confirm(organism.model, organism.behaviour, "1.0", "induction")
    assert lost.matters
    assert lost.change > 0.9 * lost.clean
    spared = confirm(organism.model, organism.behaviour, "1.0", "duplicate token")
    assert spared.change == pytest.approx(0, abs=1e-4)


def test_shuffling_keeps_each_prompts_tokens(pairs: Behaviour) -> None:
    mixed = shuffled(pairs.clean, torch.Generator().manual_seed(0))
    real = pairs.clean.mask
    assert not torch.equal(mixed.ids, pairs.clean.ids)
    for row in range(len(pairs)):
        before, after = (ids[row][real[row]] for ids in (pairs.clean.ids, mixed.ids))
        assert before[0] == after[0]
        assert sorted(before.tolist()) == sorted(after.tolist())


def test_saved_and_refused(opened: Callable[[str], Model], tmp_path: Path) -> None:
    model = opened("gpt2")
    found = detect(model, repeated(model, n=8), relations=["induction"])
    again = Detected.load(found.save(tmp_path / "heads.nc"))
    np.testing.assert_array_equal(again.values, found.values)
    np.testing.assert_array_equal(again.p, found.p)
    with pytest.raises(InputError, match="no relation 'inductoin'"):
        detect(model, relations=["inductoin"])
    with pytest.raises(InputError, match="opened without a tokenizer"):
        detect(model, relations=["same letter"])
    different = Behaviour.from_tokens([[5, 6, 7]] * 2, [[5, 6, 8]] * 2, answers=[3] * 2,
                                      wrong_answers=[4] * 2)  # fmt: skip
    with pytest.raises(InputError, match="duplicate token: no prompt of 'tokens' has a token"):
        detect(model, different, relations=["duplicate token"])
    assert [each.split(":")[0] for each in detect(model, different).left_out] == [
        "duplicate token", "induction"
    ]  # fmt: skip
