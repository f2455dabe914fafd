"""The committed bundle is the one that the sources in `web/` give, and fit to stand in a page."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from cutaway.views.figure import asset

WEB = Path(__file__).parents[2] / "web"
BUNDLE = asset("bundle/cutaway.js")

needs_sources = pytest.mark.skipif(not WEB.is_dir(), reason="an installed copy has no web/")


def sources() -> list[Path]:
    made = [WEB / name for name in ("build.mjs", "package-lock.json", "tsconfig.json")]
    return [*made, *(WEB / "src").rglob("*.ts")]


@needs_sources
def test_it_is_current() -> None:
    digest = hashlib.sha256()
    for name in sorted(path.relative_to(WEB).as_posix() for path in sources()):
        text = (WEB / name).read_text("utf-8").replace("\r\n", "\n")
        digest.update(f"{name}\n{text}".encode())
    built = BUNDLE.partition("\n")[0]
    assert built == f"// Built from web/: {digest.hexdigest()}", (
        "web/ has changed since the bundle was built; cd web && npm ci && npm run build"
    )


def test_it_is_small_and_stands_in_a_page() -> None:
    assert len(BUNDLE.encode()) < 60_000
    assert BUNDLE.isascii()
    assert not re.search(r"</script|<!--|-->", BUNDLE, re.IGNORECASE)


@needs_sources
def test_nothing_from_data_is_parsed_as_markup_or_code() -> None:
    parsing = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        r"|createContextualFragment|\bfetch\(|XMLHttpRequest|WebSocket|import\("
    )
    asking = WEB / "src" / "explore" / "ask.ts"  # the one place that asks a server
    found = {
        path.name: parsing.findall(path.read_text("utf-8"))
        for path in sources()
        if path.suffix == ".ts" and path != asking
    }
    assert parsing.findall(asking.read_text("utf-8")) == ["fetch("]
    assert not {name: words for name, words in found.items() if words}


@needs_sources
def test_sources_are_short() -> None:
    lengths = {path.name: path.read_text("utf-8").count("\n") for path in sources()}
    del lengths["package-lock.json"]
    assert max(lengths.values()) < 400


@needs_sources
def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((WEB / "package-lock.json").read_text("utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
