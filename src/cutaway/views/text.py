"""Text that comes from data, made safe to look at, and numbers written the same way everywhere.

Escaping (`<` to `&lt;`) is the renderer's job and happens once, when a plain string meets
`markupsafe`. This module does what escaping does not: characters that cannot be seen, or that
reorder or break what stands around them (control characters, bidirectional overrides, zero-width
marks, lone surrogates), are written out as their code point, and very long text is cut.
"""

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

_JOINERS = {"\u200c", "\u200d"}  # join emoji and Indic or Persian letters; harmless
_NUMERIC = re.compile(r"\s*([-+−±<>≤≥∞]?\s*[\d∞]|p [<=]|n/a|–?\s*$)")
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_ELLIPSIS = "…"
MOST = 2000
"""No piece of text on a page is longer, but for commands."""
_PERCENT = "\u00a0%"  # the blank does not break


@dataclass(frozen=True)
class Estimate:
    """A mean over examples with its interval (95 % unless the caption says otherwise)."""

    mean: float
    """The mean, in the unit of the axis it is drawn on."""
    low: float
    """Lower end of the interval; NaN where there is none."""
    high: float
    """Upper end of the interval; NaN where there is none."""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def written(self, *, percent: bool = False, sign: bool = False) -> str:
        """`1.23 (95 % CI 1.10 to 1.36)`, or the mean alone where there is no interval."""
        ends = (self.mean, self.low, self.high) if self.has_interval else (self.mean,)
        digits = decimals(max(abs(end) for end in ends))
        mean, *rest = (number(end, digits, percent=percent, sign=sign) for end in ends)
        return f"{mean} (95\u00a0% CI {rest[0]} to {rest[1]})" if rest else mean


def inert(text: str, *, keep: str = "\n") -> str:
    """Write unseen characters, except those in `keep`, as their code point (`U+202E`)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(character, keep) for character in text)


def _seen(character: str, keep: str) -> str:
    if character in keep or character in _JOINERS:
        return character
    unseen = unicodedata.category(character) in _UNSEEN or ord(character) & 0xFFFE == 0xFFFE
    return f"U+{ord(character):04X}" if unseen else character


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis when something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + _ELLIPSIS


def token_label(token: str, limit: int = 40) -> str:
    """A token as a person reads it: line ends and tabs drawn, blanks alone drawn, long ones cut."""
    token = shortened(token, limit)
    if token and not token.strip(" "):
        return "␣" * len(token)
    return inert(token.replace("\n", "⏎").replace("\t", "⇥"), keep="")


def word(token: str) -> str:
    """A token without the one blank before it, for places that show the gap themselves."""
    return token_label(token[1:] if token[:1] == " " and token.strip(" ") else token)


def number(value: float, digits: int = 2, *, percent: bool = False, sign: bool = False) -> str:
    """A number for a person: fixed decimals, a true minus sign, `n/a` for NaN, no negative zero."""
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if percent:
        value, digits = 100 * value, 1
    written = f"{abs(value):.{digits}f}"
    if not float(written):
        return f"{written}{_PERCENT if percent else ''}"
    prefix = "−" if value < 0 else "+" if sign else ""
    return f"{prefix}{written}{_PERCENT if percent else ''}"


def p_value(value: float) -> str:
    """`p = 0.012`; small ones with one digit that counts, and never a bare zero."""
    if value < 1e-4:
        return "p < 0.0001"
    return f"p = {number(value, 3 if value >= 0.01 else 4)}"


def decimals(largest: float) -> int:
    """Decimals for numbers of about this magnitude: two, or more where two would say 0.00."""
    size = abs(largest)
    return 2 if not 1e-6 <= size < 0.1 else 1 - math.floor(math.log10(size))


def text_width(text: str, size: float) -> float:
    """About how wide a sans-serif line of this size is, in pixels: enough to leave room for it."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return size * (0.6 * (len(text) - wide) + 1.05 * wide)


def wordy(cells: Iterable[str]) -> bool:
    """Whether a column of a table holds words, which are set from the left, or else numbers."""
    return any(not _NUMERIC.match(cell) for cell in cells)
