"""Parts of the model that text names, marked so that they can be chosen there.

`head 2.1`, `heads 2.1 (+0.5), 2.2 and 3.0`, `MLP 4`, `a2.h1` and `m4` are found; what names no part
that is known stays text.
"""

import re
from collections.abc import Callable, Iterator, Set

from markupsafe import Markup, escape

from cutaway.views.text import MOST, inert, shortened

_ASIDE = r"(?: \([^()]*\))?"
_NAMED: tuple[tuple[re.Pattern[str], re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(rf"\b[Hh]eads? \d+\.\d+(?:{_ASIDE}(?:, | and | or )\d+\.\d+)*"),
        re.compile(r"\([^()]*\)|(\d+)\.(\d+)"),
        lambda found: f"a{found[1]}.h{found[2]}",
    ),
    (
        re.compile(rf"\bMLPs? \d+(?!\.?\d)(?:{_ASIDE}(?:, | and | or )\d+(?!\.?\d))*"),
        re.compile(r"\([^()]*\)|(\d+)"),
        lambda found: f"m{found[1]}",
    ),
    (
        re.compile(r"(?<![\w.])(?:a\d+\.h\d+|m\d+)(?![\w.]*\w)"),
        re.compile(r"(.+)"),
        lambda found: found[1],
    ),
)


def part_of(text: str) -> str | None:
    """The first part that a text names, by its name in circuits: `a2.h1`, `m4`."""
    found = min(_mentions(text), default=None)
    return None if found is None else found[2]


def linked(text: str, parts: Set[str]) -> Markup:
    """The text, cut and escaped, with each known part that it names in a `span` of its own."""
    text = shortened(text, MOST)
    written, done = list[Markup](), 0
    for start, end, part in sorted(_mentions(text)):
        if part not in parts:
            continue
        written.append(escape(inert(text[done:start])))
        written.append(
            Markup('<span class="mention" data-part="{}">{}</span>').format(part, text[start:end])
        )
        done = end
    return Markup("").join([*written, escape(inert(text[done:]))])


def _mentions(text: str) -> Iterator[tuple[int, int, str]]:
    for phrase, each, name in _NAMED:
        for found in phrase.finditer(text):
            named = [one for one in each.finditer(found[0]) if one[1]]
            for one in named:
                # a part named alone is marked with the word before it: "head 2.1"
                start = one.start() if len(named) > 1 else 0
                yield found.start() + start, found.start() + one.end(), name(one)
