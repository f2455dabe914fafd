"""The documents: their Python examples, their links, their headings."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n+)?```python\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)|!\[[^\]]*\]\((?P<image>[^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One block of Python in a document."""

    line: int
    """Where it starts in the file, counted from 1."""
    code: str
    """What it says, shifted down so that errors name the document's own line."""
    reason: str | None
    """Why it is not run; None for the many that are."""


def documents() -> list[Path]:
    """Every page that people read."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def examples(page: Path) -> list[Example]:
    """A page's blocks of Python, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Example] = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        code = "\n" * (line - 1) + match["code"]
        found.append(Example(line=line, code=code, reason=match["reason"]))
    return found


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that lie in the repository."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = [match["target"] or match["image"] for match in _LINK.finditer(text)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {re.sub(r"[ \-]+", "-", heading.strip()) for heading in plain}
