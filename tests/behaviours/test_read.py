from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cutaway.behaviours import Behaviour, ProblemsError
from cutaway.errors import BehaviourError

HEADER = "clean,corrupt,answer,wrong_answer"
GOOD = "Sara was happy because,John was happy because, she, he"


def write(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def problems_of(path: Path, tokenizer) -> tuple[str, ...]:
    with pytest.raises(ProblemsError) as caught:
        Behaviour.from_csv(path, tokenizer)
    return tuple(str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_bom_and_windows_newlines_change_nothing(tmp_path, words, newline, mark) -> None:
    plain = Behaviour.from_csv(write(tmp_path, f"{HEADER}\n{GOOD}\n"), words)
    other = write(tmp_path, mark + newline.join([HEADER, GOOD, "", ""]), "pairs.csv")
    assert Behaviour.from_csv(other, words).fingerprint == plain.fingerprint


def test_quoted_commas_sets_labels_and_variations(tmp_path, words) -> None:
    text = (
        f"{HEADER},label:S1,label:S2,label:where,held_out,order\n"
        '"When Mary and John went to the store , John gave a drink to",'
        '"When Mary and John went to the store , Mary gave a drink to",'
        " Mary| Sara, John,John#1,John#2,-1,true,ABBA\n"
        '"Tom and Mary went , Tom gave a drink to","Tom and Mary went , Mary gave a drink to",'
        " Mary, Tom,Tom#1,Tom#2,0,no,BABA\n"
    )
    found = Behaviour.from_csv(write(tmp_path, text), words)
    assert found.labels == ("S1", "where", "S2", "end")
    assert found.clean.labels["S1"].tolist() == [3, 0]
    assert found.clean.labels["S2"].tolist() == [9, 5]
    assert found.clean.labels["where"].tolist() == [13, 0]
    assert found.clean.labels["end"].tolist() == [13, 9]
    assert found.held_out == (True, False)
    assert dict(found.variations) == {"order": ("ABBA", "BABA")}
    assert [len(answers) for answers in found.answers] == [2, 1]
    assert found.name == "pairs"


def test_all_problems_come_in_one_error(tmp_path, byte_level) -> None:
    rows = [
        HEADER,
        "Tom was happy because,Mary was happy because, she, he",
        "Tom was,Tom was happy, unpronounceable, he",
        "Tom was happy because,,nan, he",
        "Tom was happy because,Mary was happy because,she, he",
        "Tom was happy because,Mary was happy because, he, he",
        "Tom was happy,because,Mary was happy because, she, he",
    ]
    found = problems_of(write(tmp_path, "\n".join(rows)), byte_level)
    text = "\n".join(found)
    assert re.search(r"row 2, corrupt: clean is \d tokens \(.*' was'\) and corrupt \d", text)
    assert "row 2, answer: ' unpronounceable' is" in text
    assert "row 3, corrupt: the cell is empty or NaN ('')" in text
    assert "row 3, answer: the cell is empty or NaN ('nan')" in text
    assert "row 4, answer: 'she' would run on from the prompt's 'e'; did you mean ' she'" in text
    assert "row 5, wrong_answer: the token ' he' is among the answers as well" in text
    assert "row 6, row: it has 5 cells where the header has 4" in text
    assert not any(problem.startswith("row 1,") for problem in found)


def test_a_long_list_of_problems_is_cut_and_counted(tmp_path, words) -> None:
    path = write(tmp_path, "\n".join([HEADER, *["Zorblax was,Tom was, she, he"] * 50]))
    with pytest.raises(ProblemsError, match="50 problems in 50 rows") as caught:
        Behaviour.from_csv(path, words)
    assert len(caught.value.problems) == 50
    assert "and 30 more (30 in clean)" in str(caught.value)
    assert "not in this tokenizer's vocabulary: 'Zorblax'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clean,answer\na,b\n", "lacks the columns 'corrupt', 'wrong_answer'; it has 'clean'"),
        ("", "lacks the columns .* it has none"),
        (HEADER + "\n", "has a header and 0 rows"),
        (HEADER + ",order,order\n" + GOOD + ",a,b\n", "the column 'order' twice"),
        (HEADER + ",\n" + GOOD + ",a\n", "a column without a name"),
        (HEADER + ",held_out\n" + GOOD + ",maybe\n", "row 1, held_out: .* found 'maybe'"),
        (HEADER + ",label:S\n" + GOOD + ",\n", "row 1, label:S: it must be a word or a token"),
        (HEADER + ",label:S\n" + GOOD + ",Tom\n", "'Tom' does not occur in 'Sara was"),
        (HEADER + ",label:S\n" + GOOD + ",9\n", "token 9 is outside this prompt's 4 tokens"),
        (HEADER + ",label:S\n" + GOOD + ",Sara#2\n", "occurs 1 times .* no #2"),
        (f"{HEADER}\nSara was,Tom was, she|, he\n", "empty answer beside a '|'"),
        (f"{HEADER}\nSara was,Tom was, zorblax, he\n", "' zorblax' is not in this tokenizer"),
    ],
)
def test_bad_csv_files_say_what_is_wrong(tmp_path, words, text, message) -> None:
    with pytest.raises(BehaviourError, match=message.replace("|", r"\|")):
        Behaviour.from_csv(write(tmp_path, text), words)


def test_an_ambiguous_label_says_how_to_choose(tmp_path, words) -> None:
    text = f"{HEADER},label:S\nTom and Tom was,Tom and Sara was, he, she,Tom\n"
    with pytest.raises(BehaviourError, match=r"occurs 2 times .* as in 'Tom#1'"):
        Behaviour.from_csv(write(tmp_path, text), words)


def test_unreadable_files(tmp_path, words) -> None:
    with pytest.raises(BehaviourError, match=r"cannot be read .*No such file"):
        Behaviour.from_csv(tmp_path / "none.csv", words)
    (tmp_path / "wide.csv").write_bytes(HEADER.encode("utf-16"))
    with pytest.raises(BehaviourError, match="is not UTF-8 text"):
        Behaviour.from_csv(tmp_path / "wide.csv", words)


def test_other_column_names(tmp_path, words) -> None:
    text = "clean,corrupted,worse,answers,wrong_answers\nSara was,Tom was,John was, she, he\n"
    path = write(tmp_path, text)
    assert Behaviour.from_csv(path, words).corrupt_texts == ("Tom was",)
    chosen = Behaviour.from_csv(path, words, columns={"corrupt": "worse"})
    assert chosen.corrupt_texts == ("John was",)
    with pytest.raises(BehaviourError, match="columns= can map clean, corrupt"):
        Behaviour.from_csv(path, words, columns={"dirty": "worse"})


def test_answers_continue_the_prompt(words, byte_level, with_bos) -> None:
    for tokenizer in (words, with_bos):
        for answer in ("she", " she"):
            found = Behaviour.from_pairs(
                ["Sara was happy because"], ["Tom was happy because"], [answer], [" he"], tokenizer
            )
            assert found.answers == ((17,),)
    digits = Behaviour.from_pairs(["When year 17"], ["When years 17"], ["32"], ["99"], byte_level)
    assert byte_level.convert_ids_to_tokens(list(digits.answers[0])) == ["32"]


def test_a_space_at_the_end_of_the_prompt_is_explained(byte_level) -> None:
    for answer in ("happy", " happy"):
        with pytest.raises(ProblemsError, match=r"ends in a space.*put it before the answer"):
            Behaviour.from_pairs(["Tom was "], ["Mary was "], [answer], [" sad"], byte_level)


def test_a_tokenizer_that_ends_texts_is_refused_unless_told(with_eos) -> None:
    given = (["Sara was"], ["Tom was"], [" she"], [" he"], with_eos)
    with pytest.raises(ProblemsError, match="puts '<eos>' after the text"):
        Behaviour.from_pairs(*given)
    assert Behaviour.from_pairs(*given, bos=True).clean.row_ids(0) == [1, 8, 19]


def test_bos_is_the_tokenizers_default_or_explicit(with_bos) -> None:
    given = (["Sara was"], ["Tom was"], ["she"], ["he"], with_bos)
    assert Behaviour.from_pairs(*given).clean.row_ids(0) == [1, 8, 19]
    assert Behaviour.from_pairs(*given, bos=False).clean.row_ids(0) == [8, 19]
    labelled = Behaviour.from_pairs(*given, labels={"NAME": ["Sara"]})
    assert labelled.clean.labels["NAME"].tolist() == [1]


def test_json_says_the_same_as_csv(tmp_path, words) -> None:
    pair = {
        "clean": "Sara was happy because",
        "corrupt": "John was happy because",
        "answers": [" she"],
        "wrong_answers": " he",
        "labels": {"NAME": "Sara", "last": -1},
        "variation": {"mood": "happy"},
        "held_out": True,
    }
    document = {"name": "moods", "metric": "prob_diff", "pairs": [pair]}
    found = Behaviour.from_json(write(tmp_path, json.dumps(document), "a.json"), words)
    assert (found.name, found.metric, found.held_out) == ("moods", "prob_diff", (True,))
    text = f"{HEADER},label:NAME,label:last,mood,held_out\n{GOOD},Sara,-1,happy,1\n"
    csv = Behaviour.from_csv(write(tmp_path, text), words, name="moods", metric="prob_diff")
    assert csv.answers == found.answers
    assert csv.variations == found.variations
    assert {k: v.tolist() for k, v in csv.clean.labels.items()} == {
        k: v.tolist() for k, v in found.clean.labels.items()
    }


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[", "is not valid JSON"),
        ("[]", "found 0 pairs"),
        ('{"pears": 1}', "found NoneType"),
        ("[3]", "row 1, pair: it must be an object; found int"),
        ('[{"clean": null, "corrupt": "Tom was", "answer": " he", "wrong_answer": []}]', "2 prob"),
        ('[{"clean": NaN, "corrupt": "a", "answer": "b", "wrong_answer": "c"}]', "clean: .* nan"),
    ],
)
def test_bad_json_files_say_what_is_wrong(tmp_path, words, document, message) -> None:
    with pytest.raises(BehaviourError, match=message):
        Behaviour.from_json(write(tmp_path, document, "a.json"), words)


def test_pairs_of_different_numbers_are_refused(words) -> None:
    with pytest.raises(BehaviourError, match="clean 2, corrupt 1, answers 1"):
        Behaviour.from_pairs(["Tom was", "Sara was"], ["Mary was"], [" he"], [" she"], words)
    with pytest.raises(BehaviourError, match="found a single string"):
        Behaviour.from_pairs("Tom was", "Sara was", " he", " she", words)


def test_a_tokenizer_without_offsets_is_refused(words) -> None:
    class Slow:
        bos_token_id = eos_token_id = unk_token_id = None

        def __call__(self, text: str, **options: object):
            return words(text, **options)

        def decode(self, ids: list[int], **options: object) -> str:
            return words.decode(ids, **options)

    with pytest.raises(BehaviourError, match="fast tokenizer, and Slow is not one"):
        Behaviour.from_pairs(["Tom was"], ["Sara was"], [" he"], [" she"], Slow())


def test_pronouns_with_a_real_tokenizer(shared) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/stories260k")
    found = Behaviour.from_csv(shared / "data/pronouns_stories260k.csv", tokenizer)
    assert len(found) == 100
    assert {token for answers in found.answers for token in answers} == set(
        tokenizer.convert_tokens_to_ids(["▁she", "▁he"])
    )
    assert {ids[0] for ids in map(found.clean.row_ids, range(100))} == {tokenizer.bos_token_id}


def test_indirect_objects_with_gpt2s_tokenizer(shared) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "data/gpt2_tokenizer")
    path = shared / "data/ioi.csv"
    assert len(Behaviour.from_csv(path, tokenizer)) == 499
    harder = Behaviour.from_csv(path, tokenizer, columns={"corrupt": "corrupted_hard"})
    assert "corrupted" in harder.variations
    with pytest.raises(BehaviourError, match="lacks the columns 'answer', 'wrong_answer'"):
        Behaviour.from_csv(shared / "data/greater_than.csv", tokenizer)
