"""The page's bundle is the one that the sources in `web/` give, and the only code it runs."""

import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"
ROOM = files("cutaway.explore")
BUNDLE = ROOM.joinpath("bundle/explorer.js").read_text("utf-8")


@pytest.mark.skipif(not WEB.is_dir(), reason="an installed copy has no web/")
def test_it_is_current() -> None:
    made = [WEB / name for name in ("build.mjs", "package-lock.json", "tsconfig.json")]
    digest = hashlib.sha256()
    sources = [*made, *(WEB / "src").rglob("*.ts")]
    for name in sorted(path.relative_to(WEB).as_posix() for path in sources):
        text = (WEB / name).read_text("utf-8").replace("\r\n", "\n")
        digest.update(f"{name}\n{text}".encode())
    assert BUNDLE.partition("\n")[0] == f"// Built from web/: {digest.hexdigest()}", (
        "web/ has changed since the bundle was built; cd web && npm ci && npm run build"
    )


def test_it_is_small_and_asks_in_one_place() -> None:
    assert len(BUNDLE.encode()) < 80_000
    assert BUNDLE.isascii()
    assert len(re.findall(r"\bfetch\(", BUNDLE)) == 1
    assert not re.search(r"innerHTML|insertAdjacentHTML|\beval\(|new Function", BUNDLE)


def test_the_page_has_no_code_or_style_of_its_own() -> None:
    page = ROOM.joinpath("page.html").read_text("utf-8")
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="/explorer.js">']
    assert not re.search(r"<style| style=| on[a-z]+=|https?://", page)
