"""Value or pointer: told right where it is known, refused where it cannot be told."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.observe import planted

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import InputError, SiteError
from cutaway.model import Model
from cutaway.model.edits import replace
from cutaway.observe import Moved, value_or_pointer
from cutaway.organisms import constructed

made = cache(lambda name: getattr(planted, name)())


@pytest.mark.parametrize(
    ("name", "mover", "reader", "verdict"),
    [
        ("by_value", "0.0", "1.1", "value"),
        ("by_place", "1.0", "2.1", "pointer"),
        ("by_both", "1.0", "2.1", "both"),
    ],
)
def test_planted_heads_hand_on_what_their_program_says(
    name: str, mover: str, reader: str, verdict: str
) -> None:
    model = made(name)
    pairs = planted.objects(model)
    found = value_or_pointer(model, pairs, [mover, reader, "0.2"])
    assert found.verdicts == {mover: verdict, reader: "value", "0.2": "undecided"}
    signs = np.sign(found.leaning.sel(head=mover).mean("example"))
    assert signs == {"value": 1, "pointer": -1, "both": 1}[verdict]
    table = found.table().set_index("head")
    whole = 2 * float(found.clean.mean())
    assert table.loc[mover, "both"] == pytest.approx(whole, rel=1e-4)
    deaf = {"value": "pointer", "pointer": "value"}.get(verdict)
    if deaf is not None:
        assert table.loc[mover, verdict] == pytest.approx(whole, rel=1e-4)
        assert table.loc[mover, deaf] == pytest.approx(0, abs=1e-3)
    # The reader's query is the only place through which this head matters.
    path = value_or_pointer(model, pairs, [mover], into=[reader])
    np.testing.assert_allclose(path.values, found.values.sel(head=[mover]), atol=1e-3)
    past = value_or_pointer(model, pairs, [mover], into=[(int(reader[0]), 3)])
    np.testing.assert_allclose(past.values, 0, atol=1e-3)


def test_the_fall_is_that_of_the_edit_done_by_hand() -> None:
    model = made("by_place")
    pairs = planted.objects(model, n=6)
    found = value_or_pointer(model, pairs, [(1, 0)], batch_size=4)
    for row in range(len(pairs)):
        words = list(pairs.token_texts[row])
        io, first = (int(pairs.clean.labels[name][row]) for name in ("IO", "S1"))
        right, wrong = pairs.answers[row][0], pairs.wrong_answers[row][0]
        clean = torch.tensor([model.tokenizer.convert_tokens_to_ids(words)])
        words[io], words[first] = words[first], words[io]
        other = torch.tensor([model.tokenizer.convert_tokens_to_ids(words)])
        source = model.run(other, keep=["z.1"])
        edit = replace("z.1", from_=source, head=0, position=-1)
        before, after = (
            float(run.logits[0, -1, right] - run.logits[0, -1, wrong])
            for run in (model.run(clean), model.run(clean, edits=[edit]))
        )
        fall = found.values.sel(head="1.0", source="pointer").values[row]
        assert fall == pytest.approx(before - after, abs=1e-3)


def test_the_shipped_model_hands_on_values_from_the_second_mention() -> None:
    model = cutaway.open()
    pairs = cutaway.behaviour("ioi", model, n=24)
    found = value_or_pointer(model, pairs, ["1.2", "1.3", "2.2", "2.3", "2.4", "3.1"])
    verdicts = found.verdicts
    # 3.1 says what stood first, whichever name the answer is.
    assert verdicts.pop("3.1") == "undecided"
    assert set(verdicts.values()) == {"value"}


def test_saved_and_read_again(tmp_path: Path) -> None:
    model = made("by_value")
    found = value_or_pointer(model, planted.objects(model, n=8), [(0, 0)])
    again = Moved.load(found.save(tmp_path / "moved.nc"))
    assert again.to_dataset().identical(found.to_dataset())
    assert again.verdicts == found.verdicts == {"0.0": "value"}


def test_what_cannot_be_told_is_refused(opened: Callable[[str], Model], pairs: Behaviour) -> None:
    model = made("by_value")
    names = planted.objects(model, n=8)
    with pytest.raises(SiteError, match="No head was given as heads"):
        value_or_pointer(model, names, [])
    with pytest.raises(SiteError, match=r"Head 0\.1 cannot see what a head of layer 0 writes"):
        value_or_pointer(model, names, [(0, 0)], into=[(0, 1)])
    with pytest.raises(SiteError, match="the last is"):
        value_or_pointer(model, names, [(0, 9)])
    with pytest.raises(InputError, match="do not come apart in 'tokens': no prompt has its answer"):
        value_or_pointer(opened("gpt2"), pairs, [(0, 0)])
    with pytest.raises(InputError, match="do not come apart in 'last name'"):
        value_or_pointer(model, planted.last_name(model, n=8), [(0, 0)])
    untrained = opened("gpt2")
    with pytest.raises(InputError, match="does not answer the exchanged prompts"):
        value_or_pointer(untrained, names, [(0, 0)])


def test_places_that_other_tokens_tell_are_exchanged_by_label() -> None:
    # In an induction prompt the places are told by the letters before the answers.
    organism = constructed("induction", n=4)
    model = organism.model
    rows = [["<bos>", *"abcd", "a"], ["<bos>", *"cfah", "a"]]
    ids = [model.tokenizer.convert_tokens_to_ids(row) for row in rows]
    labels = {"A1": [1, 3], "B1": [2, 4], "A2": [3, 1], "B2": [4, 2], "end": [5, 5]}
    prompts = Behaviour.from_tokens(
        ids, ids, answers=[ids[0][2], ids[1][4]], wrong_answers=[ids[0][4], ids[1][2]],
        labels=labels, tokenizer=model.tokenizer,
    )  # fmt: skip
    with pytest.raises(InputError, match="do not come apart"):
        value_or_pointer(model, prompts, ["1.0"])
    found = value_or_pointer(model, prompts, ["1.0"], exchanged=[("A1", "A2"), ("B1", "B2")])
    assert found.verdicts == {"1.0": "value"}
