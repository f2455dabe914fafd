import math

import pytest

from cutaway.views.text import Estimate, decimals, inert, number, shortened, token_label, word


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain", "plain"),
        ("a\u202eb", "aU+202Eb"),
        ("\u2066x\u2069", "U+2066xU+2069"),
        ("\x00\x1b[31m", "U+0000U+001B[31m"),
        ("\ud800", "U+D800"),
        ("\ufffe", "U+FFFE"),
        ("\u200b\u00ad", "U+200BU+00AD"),
        ("line\nend", "line\nend"),
        ("👩\u200d👧 é ש 日本", "👩\u200d👧 é ש 日本"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, seen: str) -> None:
    assert inert(text) == seen
    inert(text).encode("utf-8")


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        (" Mary", " Mary"),
        ("\n", "⏎"),
        ("\t", "⇥"),
        ("  ", "␣␣"),
        ("", ""),
        ("x" * 99, "x" * 39 + "…"),
    ],
)
def test_tokens_read_as_a_person_would(token: str, seen: str) -> None:
    assert token_label(token) == seen


def test_a_word_loses_the_one_blank_before_it() -> None:
    assert [word(token) for token in (" Mary", "Mary", "  x", " ", "")] == [
        "Mary",
        "Mary",
        " x",
        "␣",
        "",
    ]


def test_numbers_are_written_one_way() -> None:
    assert number(1.234) == "1.23"
    assert number(-1.5, sign=True) == "−1.50"
    assert number(1.5, sign=True) == "+1.50"
    assert number(-0.001) == "0.00"
    assert number(math.nan) == "n/a"
    assert number(-math.inf) == "−∞"
    assert number(0.985, percent=True) == "98.5\u00a0%"


def test_small_numbers_keep_two_digits_that_say_something() -> None:
    assert number(0.0042, decimals(0.0042)) == "0.0042"
    assert decimals(3.0) == decimals(0.0) == decimals(math.nan) == 2


def test_an_estimate_says_its_interval() -> None:
    assert Estimate(1, 0.5, 1.5).written() == "1.00 (95\u00a0% CI 0.50 to 1.50)"
    assert Estimate(1, math.nan, math.nan).written() == "1.00"
    assert Estimate(0.004, 0.003, 0.005).written() == "0.0040 (95\u00a0% CI 0.0030 to 0.0050)"


def test_shortened_never_exceeds_its_limit() -> None:
    assert len(shortened("x" * 100_000, 40)) == 40
