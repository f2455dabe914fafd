"""Parts of the model that text names."""

import pytest

from cutaway.views.mentions import linked, part_of

KNOWN = {"a2.h1", "a10.h12", "a3.h0", "m0", "m4"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Head 2.1 on prompt 1", ["a2.h1"]),
        ("heads 2.1, 10.12 and 3.0 write 2.5", ["a2.h1", "a10.h12", "a3.h0"]),
        ("heads 2.1 (+1.3), 3.0 (95 % CI 10.12 to 2.1) and 10.12", ["a2.h1", "a3.h0", "a10.h12"]),
        ("MLPs 0 and 4 of 12", ["m0", "m4"]),
        ("MLP 4 at end", ["m4"]),
        ("m0->a2.h1<v> (+8.30)", ["m0", "a2.h1"]),
        ("a2.h1, m4.", ["a2.h1", "m4"]),
        ("head 2.9, MLP 7 and a9.h9", []),
        ("m4.n17 and am0 and item m40", []),
        ("ahead 2.1 of overhead 3.0", []),
        ("MLP 4.5 and MLPs 0.4", []),
        ("rose to 2.1 (of 4)", []),
    ],
)
def test_what_is_named_is_found(text: str, found: list[str]) -> None:
    page = linked(text, KNOWN)
    assert [each.split('"')[0] for each in page.split('data-part="')[1:]] == found
    assert page.striptags() == text or "<" in text


def test_text_around_is_escaped_and_inert() -> None:
    page = linked("<b>head 2.1</b>\u202e & m4", KNOWN)
    assert page == (
        '&lt;b&gt;<span class="mention" data-part="a2.h1">head 2.1</span>&lt;/b&gt;U+202E &amp; '
        '<span class="mention" data-part="m4">m4</span>'
    )


def test_the_first_part_named() -> None:
    assert part_of("head 2.9 through MLP 3") == "a2.h9"
    assert part_of("attention 2") is None
