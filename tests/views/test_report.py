import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from view_samples import HOSTILE, TOKENS, report

from cutaway.errors import CutawayError
from cutaway.views import ExamplePrompt, Report, Table, ViewError, render, write

VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """Every tag with its attributes; tags must close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


@pytest.mark.parametrize("text", HOSTILE, ids=[str(index) for index in range(len(HOSTILE))])
def test_hostile_text_stays_text(text: str) -> None:
    plain = Outline(render(report()))
    page = render(report((text, *TOKENS), text))
    outline = Outline(page)
    kinds = [attributes.get("type") for attributes in outline.named("script")]
    assert kinds == ["application/json"] * 3 + ["module"]
    assert len(outline.named("style")) == 1
    assert not outline.named("img", "iframe", "object", "base", "form")
    known = {name for _, attributes in plain.tags for name in attributes}
    assert {name for _, attributes in outline.tags for name in attributes} <= known
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b\ud800-\udfff]", page)
    page.encode("utf-8")


def test_a_huge_token_is_cut_everywhere() -> None:
    text = "x" * 100_000
    page = render(report((text, *TOKENS)))
    assert len(page) < 400_000
    assert "x" * 401 not in page


def test_the_page_asks_for_nothing() -> None:
    page = render(report())
    outline = Outline(page)
    for tag, attributes in outline.tags:
        for name, value in attributes.items():
            if name in {"src", "href", "action", "data", "srcset", "poster", "xlink:href"}:
                assert value is not None
                assert value.startswith("#") or value == "data:,", (tag, name, value)
    assert set(re.findall(r"(?:https?:)?//[\w.]+", page.split("<script>")[0])) <= {
        "http://www.w3.org"
    }
    assert "url(" not in page
    assert "@import" not in page
    policy = next(a["content"] for a in outline.named("meta") if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in outline.tags)
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)


def test_a_reader_finds_the_way_without_eyes() -> None:
    outline = Outline(render(report()))
    tags = [tag for tag, _ in outline.tags]
    assert tags.count("h1") == tags.count("main") == tags.count("nav") == 1
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes in outline.named("a"):
        assert (attributes["href"] or "")[1:] in ids
    for _, attributes in outline.tags:
        for reference in (attributes.get("aria-labelledby") or "").split():
            assert reference in ids
    assert all(a.get("scope") in {"col", "row"} for a in outline.named("th"))
    assert tags.count("table") == tags.count("caption")
    assert all(a.get("aria-label") for a in outline.named("svg") if a.get("role") == "img")


def test_everything_said_is_on_the_page() -> None:
    page = render(report(name="NAME"))
    for text in (
        "Title NAME",
        "Summary NAME",
        "75.0\u00a0%",
        "95\u00a0% CI 65.0\u00a0% to 85.0\u00a0%",
        "A sentence about NAME.",
        "cutaway study ioi --n 200 NAME",
        "2 more prompts",
        "Second section",
    ):
        assert text in page
    assert page.count('class="prompt"') == 7  # one of them in the summary


def test_the_same_report_gives_the_same_page() -> None:
    assert render(report()) == render(report())


def test_an_empty_report_is_a_page() -> None:
    outline = Outline(render(Report(title="Nothing yet")))
    assert not outline.named("figure", "dl")


def test_two_hundred_prompts_stay_small() -> None:
    assert len(render(report(n_examples=200)).encode()) < 5_000_000


def test_writing_replaces_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write(report(), target) == target
    assert target.read_text("utf-8") == render(report())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ViewError, match=r"cannot be written to.*name a file in a folder that exists"
    ):
        write(report(), tmp_path / "missing" / "report.html")
    taken = tmp_path / "folder"
    taken.mkdir()
    with pytest.raises(CutawayError, match="cannot be written"):
        write(report(), taken)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_labels_and_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ViewError, match=r"\{'end': 3\} lie outside a prompt of 2 tokens"):
        ExamplePrompt(tokens=("a", "b"), answers=("c",), labels={"end": 3})
    with pytest.raises(ViewError, match="Row 0 of the table 'T' has 1 cells where 2"):
        Table(caption="T", columns=("a", "b"), rows=(("x",),))
