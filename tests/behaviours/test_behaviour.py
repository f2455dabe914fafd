from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cutaway.behaviours import Behaviour, ProblemsError
from cutaway.errors import BehaviourError
from cutaway.model.tokens import Tokens

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def made(lengths: list[int], seed: int = 0, padding: str = "right") -> Behaviour:
    draw = torch.Generator().manual_seed(seed)
    sides = [
        [torch.randint(0, 50, (n,), generator=draw).tolist() for n in lengths] for _ in range(2)
    ]
    return Behaviour.from_tokens(
        *sides,
        answers=[[50 + row, 70] for row in range(len(lengths))],
        wrong_answers=[60 + row for row in range(len(lengths))],
        labels={"first": [0] * len(lengths), "middle": [n // 2 for n in lengths]},
        variations={"length": [str(n) for n in lengths]},
        held_out=[row % 2 == 1 for row in range(len(lengths))],
        padding=padding,
    )


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(0, 99))
def test_padding_side_is_invisible(lengths: list[int], seed: int) -> None:
    left, right = (made(lengths, seed, side) for side in ("left", "right"))
    rows = torch.arange(len(lengths))
    for name in left.labels:
        a, b = left.clean.labels[name], right.clean.labels[name]
        assert torch.equal(a - left.clean.first, b - right.clean.first)
        assert torch.equal(left.clean.ids[rows, a], right.clean.ids[rows, b])
    assert left.token_texts == right.token_texts
    assert torch.equal(left.clean.labels["end"], left.clean.last)


@settings(max_examples=15, deadline=None)
@given(LENGTHS, st.integers(0, 99))
def test_save_and_load_give_the_same(tmp_path_factory, lengths: list[int], seed: int) -> None:
    behaviour = made(lengths, seed)
    path = behaviour.save(tmp_path_factory.mktemp("saved") / "behaviour")
    loaded = Behaviour.load(path)
    assert loaded.fingerprint == behaviour.fingerprint
    assert loaded.variations == behaviour.variations
    assert loaded.provenance == behaviour.provenance
    assert torch.equal(loaded.clean.mask, behaviour.clean.mask)
    assert loaded.labels == behaviour.labels or set(loaded.labels) == set(behaviour.labels)
    assert {file.name for file in path.iterdir()} == {"tokens.safetensors", "behaviour.json"}
    behaviour.save(path)


def test_what_decides_results_decides_the_fingerprint() -> None:
    behaviour = made([3, 4])
    assert made([3, 4]).fingerprint == behaviour.fingerprint
    assert replace(behaviour, provenance={"n": 1}).fingerprint == behaviour.fingerprint
    others = [
        made([3, 4], seed=1),
        made([3, 4], padding="left"),
        replace(behaviour, metric="accuracy"),
        replace(behaviour, held_out=(True, True)),
        replace(behaviour, answers=behaviour.wrong_answers, wrong_answers=behaviour.answers),
    ]
    assert len({behaviour.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_nothing_is_overwritten(tmp_path) -> None:
    made([3]).save(tmp_path)
    with pytest.raises(BehaviourError, match="already holds another behaviour"):
        made([4]).save(tmp_path)
    assert Behaviour.load(tmp_path).fingerprint == made([3]).fingerprint


def test_damaged_files_are_refused(tmp_path) -> None:
    with pytest.raises(BehaviourError, match="holds no saved behaviour"):
        Behaviour.load(tmp_path)
    record = made([3, 2]).save(tmp_path) / "behaviour.json"
    whole = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**whole, "answers": [[1], [2]]}), encoding="utf-8")
    with pytest.raises(BehaviourError, match="has changed since it was saved"):
        Behaviour.load(tmp_path)
    record.write_text(json.dumps({"format": 1}), encoding="utf-8")
    with pytest.raises(BehaviourError, match="is incomplete"):
        Behaviour.load(tmp_path)
    record.write_text(json.dumps({**whole, "format": 99}), encoding="utf-8")
    with pytest.raises(BehaviourError, match="not a behaviour in format 1"):
        Behaviour.load(tmp_path)
    record.write_text(json.dumps(whole), encoding="utf-8")
    (tmp_path / "tokens.safetensors").unlink()
    with pytest.raises(BehaviourError, match=r"no readable tokens\.safetensors"):
        Behaviour.load(tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BehaviourError, match="cannot be saved"):
        made([3]).save(tmp_path / "file" / "below")


def test_rows_keep_everything_together() -> None:
    behaviour = made([3, 1, 5, 2])
    for index in ([2, 0], torch.tensor([2, 0]), [-2, 0]):
        chosen = behaviour.rows(index)
        assert chosen.variations["length"] == ("5", "3")
        assert chosen.answers == (behaviour.answers[2], behaviour.answers[0])
        assert chosen.clean.labels["middle"].tolist() == [2, 1]
    masked = behaviour.rows(torch.tensor([False, True, False, True]))
    assert masked.fingerprint == behaviour.rows(slice(1, None, 2)).fingerprint


@pytest.mark.parametrize("index", [[], [4], slice(9, 9), torch.zeros(4, dtype=torch.bool)])
def test_impossible_rows_are_refused(index) -> None:
    with pytest.raises(BehaviourError, match=r"examples 0 to 3|has no example"):
        made([3, 1, 5, 2]).rows(index)


def test_splits_part_the_examples() -> None:
    behaviour = made([3, 1, 5, 2, 2])
    train, held = behaviour.split("train"), behaviour.split("held-out")
    assert (len(train), len(held)) == (3, 2)
    assert not any(train.held_out)
    assert all(held.held_out)
    assert behaviour.split("all") is behaviour
    assert behaviour.has_held_out
    assert not train.has_held_out
    with pytest.raises(BehaviourError, match="has no held-out example among its 3"):
        train.split("held-out")
    with pytest.raises(BehaviourError, match="found 'test'"):
        behaviour.split("test")


def test_holding_out_is_seeded() -> None:
    behaviour = made([2] * 10)
    first, again = behaviour.hold_out(0.3, seed=1), behaviour.hold_out(0.3, seed=1)
    assert sum(first.held_out) == 3
    assert first.held_out == again.held_out
    assert sum(behaviour.hold_out(0.01).held_out) == 1
    with pytest.raises(BehaviourError, match="give at least 2"):
        made([2]).hold_out()


@pytest.mark.parametrize("padding", ["left", "right"])
def test_end_logits_are_those_of_the_last_token(padding: str) -> None:
    behaviour = made([3, 1, 4], padding=padding)
    places = torch.arange(4.0).expand(3, 4)[:, :, None].expand(3, 4, 5)
    found = behaviour.end_logits(places)
    assert found.shape == (3, 5)
    assert torch.equal(found[:, 0].long(), behaviour.clean.last)


def test_it_reads_well() -> None:
    text = repr(made([3, 1]))
    assert "n=2, held_out=1" in text
    assert "end" in text
    assert "logit_diff" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"metric": "loss"}, "there is no 'loss'; choose one of logit_diff"),
        (lambda b: {"answers": b.answers[:1]}, "answers: it has 1 entries for 2 pairs"),
        (lambda b: {"answers": ((), (9,))}, "row 1, answer: there is none"),
        (lambda b: {"wrong_answers": ((1, 1), (2,))}, "must be different token ids"),
        (lambda b: {"wrong_answers": b.answers}, "is an answer as well"),
        (lambda b: {"variations": {"a": ("x",)}}, "variation 'a': it has 1 entries"),
        (lambda b: {"corrupt": made([3, 1]).corrupt}, r"\(2, 3\).*|row 2, corrupt: clean is 2"),
        (lambda b: {"corrupt": made([4, 2]).corrupt}, r"shape \(2, 3\).*corrupt \(2, 4\)"),
        (lambda b: {"corrupt": replace(b.corrupt, labels={})}, "give both the same"),
        (
            lambda b: {side: replace(getattr(b, side), labels={}) for side in ("clean", "corrupt")},
            "the label 'end'",
        ),
        (
            lambda b: {
                "corrupt": replace(
                    b.corrupt, labels={**b.corrupt.labels, "first": torch.tensor([1, 0])}
                )
            },
            "row 1, label:first: it is position 0 in clean and 1 in corrupt",
        ),
        (
            lambda b: {
                side: replace(
                    getattr(b, side),
                    labels={**getattr(b, side).labels, "first": torch.tensor([0, 2])},
                )
                for side in ("clean", "corrupt")
            },
            "row 2, label:first: position 2 is padding or outside",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message: str) -> None:
    behaviour = made([3, 2])
    with pytest.raises(ProblemsError, match=message):
        replace(behaviour, **change(behaviour))


def test_tokens_can_be_given_as_a_batch_or_a_tensor(words) -> None:
    ids = torch.tensor([[3, 4], [5, 6]])
    batch = Tokens(ids=ids, mask=torch.tensor([[True, True], [False, True]]))
    padded = Behaviour.from_tokens(
        batch,
        replace(batch, ids=ids + 1),
        answers=[7, 8],
        wrong_answers=[9, 10],
        labels={"first": [0, 0]},
        tokenizer=words,
    )
    assert padded.clean.labels["first"].tolist() == [0, 1]
    assert padded.token_texts == (("When", "Mary"), ("John",))
    plain = Behaviour.from_tokens(ids, ids + 1, answers=[7, 8], wrong_answers=[9, 10])
    assert plain.clean_texts == ("3 4", "5 6")
