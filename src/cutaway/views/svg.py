"""The few drawing words every figure is written in.

A tag's children are `Markup` (drawn already) or plain strings, which are made inert and escaped
here, once. Colours are class names whose rules stand in `figure.css`, so that a figure follows the
page's theme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from cutaway.views.text import inert, shortened, text_width

SMALL, NORMAL = 11, 12
"""Font sizes in pixels: tick labels, and everything else (see `figure.css`)."""


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """One element. `class_` is `class`, `text_anchor` is `text-anchor`; None leaves one out."""
    written = "".join(
        f' {_attribute_name(key)}="{escape(_attribute_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(
        child if isinstance(child, Markup) else escape(inert(child)) for child in children
    )
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def label(
    x: float, y: float, text: str, *, anchor: str = "start", kind: str = "tick", **more: object
) -> Markup:
    """A line of text whose baseline is at `y`; `kind` is its class (tick, axis, value, …)."""
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=kind, **more)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line of the class `kind`."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def rectangle(
    x: float, y: float, width: float, height: float, kind: str, *inside: str, **more: object
) -> Markup:
    """A rectangle of the class `kind`; `inside` is usually its title."""
    return tag("rect", *inside, x=x, y=y, width=width, height=height, class_=kind, **more)


def hint(text: str) -> Markup:
    """The text shown on hover and read by screen readers."""
    return tag("title", shortened(text, 400))


def drawing(width: float, height: float, alt: str, parts: Sequence[str], **more: object) -> Markup:
    """The whole picture, `width` × `height` pixels, with `alt` for those who cannot see it."""
    room = "narrow" if width <= 430 else "middle" if width <= 620 else "broad"
    return tag(
        "svg",
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_attribute_value(width)} {_attribute_value(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=shortened(inert(alt), 600),
        class_=f"cutaway {room}",
        **more,
    )


def fitted(text: str, room: float, size: float = SMALL) -> str:
    """`text` cut to fit about `room` pixels."""
    limit = len(text)
    while limit > 2 and text_width(shortened(text, limit), size) > room:
        limit = min(limit - 1, int(room / size * 2)) if limit > room else limit - 1
    return shortened(text, max(limit, 2))


@dataclass(frozen=True)
class Scale:
    """A straight map from values (`low` … `high`) to pixels (`start` … `end`), with round ticks."""

    low: float
    """Value drawn at `start`."""
    high: float
    """Value drawn at `end`."""
    start: float
    """Pixel of `low`."""
    end: float
    """Pixel of `high`."""

    def __call__(self, value: float) -> float:
        """The pixel of `value`, clipped to the scale."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + max(0.0, min(1.0, share)) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values inside the scale, about this many."""
        step = _round_step((self.high - self.low) / max(about, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]

    def decimals(self, about: int = 5) -> int:
        """Decimals that tell neighbouring ticks apart."""
        step = _round_step((self.high - self.low) / max(about, 1))
        return max(0, -math.floor(math.log10(step) + 1e-9))


def scale_over(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale that holds zero and every finite value, with a little air on the sides used."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    if low == high:
        high = 1.0
    air = 0.06 * (high - low)
    return Scale(low - air if low < 0 else low, high + air if high > 0 else high, start, end)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.75)


def _attribute_name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _attribute_value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return inert(str(value))
