"""Colours, as CSS variables for a light and a dark page.

Two hues carry a sign everywhere: blue is positive (towards the correct answer), orange negative;
the pair stays apart for every common colour blindness. Violet carries amounts without a sign
(attention). Each ramp runs from the page's own neutral to a strong end through hand-chosen stops,
linear between them, in fixed steps: `d0` … `d40` diverging with 20 the neutral, `s0` … `s20`
sequential. `e…` and `u…` are the text colours that read best on them;
`a…` is the sequential ramp as a background.
"""

import math

DIVERGING_STEPS = 20
"""Steps from neutral to either end of the diverging ramp."""
SEQUENTIAL_STEPS = 20
"""Steps from nothing to everything on the sequential ramp."""

_INK = {"light": ("#14181d", "#ffffff"), "dark": ("#0d1014", "#f4f6f8")}
_READABLE = 4.5
_RAMPS = {
    "light": {
        "positive": ("#f3f2ee", "#c9dcec", "#84b5d8", "#3b82b8", "#0f4c84"),
        "negative": ("#f3f2ee", "#f8d9c2", "#efa97a", "#d36a2e", "#94390b"),
        "amount": ("#f3f2ee", "#dcd3ea", "#b39fd3", "#7f63b3", "#472a80"),
    },
    "dark": {
        "positive": ("#23272d", "#23435c", "#2f6c97", "#58a3d6", "#b4dcf7"),
        "negative": ("#23272d", "#553421", "#93552b", "#d98a4b", "#ffd3a8"),
        "amount": ("#23272d", "#393152", "#5e4d90", "#937ecc", "#d8ccf8"),
    },
}
_SURFACES = {
    "light": {
        "page": "#fbfaf8",
        "card": "#ffffff",
        "ink": "#14181d",
        "soft": "#545c66",
        "faint": "#d9d8d3",
        "grid": "#eae8e3",
        "band": "#f6f5f1",
        "positive": "#2a72a8",
        "negative": "#b8521b",
        "amount": "#6a4ca3",
        "good": "#1d6b4f",
        "focus": "#0f4c84",
    },
    "dark": {
        "page": "#14171b",
        "card": "#1a1e23",
        "ink": "#eceff2",
        "soft": "#a3acb6",
        "faint": "#3a414a",
        "grid": "#2a3037",
        "band": "#20252b",
        "positive": "#66aede",
        "negative": "#e39656",
        "amount": "#a895de",
        "good": "#6fcaa4",
        "focus": "#8cc8f2",
    },
}


def diverging_step(value: float, limit: float) -> int:
    """Index 0–40 on the diverging ramp of a value between `-limit` and `limit` (clipped)."""
    share = max(-1.0, min(1.0, value / limit))
    return DIVERGING_STEPS + math.floor(share * DIVERGING_STEPS + 0.5)


def sequential_step(value: float, limit: float = 1.0) -> int:
    """Index 0–20 on the sequential ramp of a value between 0 and `limit` (clipped)."""
    share = max(0.0, min(1.0, value / limit))
    return math.floor(share * SEQUENTIAL_STEPS + 0.5)


def theme_css(root: str = ":root") -> str:
    """Variables for both themes (system setting, or `data-theme` on the root) and step classes.

    `root` selects what they hold for; for a part of a page, the step classes hold inside it alone.
    """
    light, dark = _variables("light"), _variables("dark")
    inside = "" if root == ":root" else f"{root} "
    blocks = [
        f"{root}{{color-scheme:light;{light}}}",
        f"@media (prefers-color-scheme:dark){{{root}:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}",
        f"{root}[data-theme=dark]{{color-scheme:dark;{dark}}}",
        f"@media print{{{root * 3}{{color-scheme:light;{light}}}}}",
    ]
    for ramp, text, last in (("d", "e", 2 * DIVERGING_STEPS), ("s", "u", SEQUENTIAL_STEPS)):
        names = [(f"{ramp}{step}", f"{text}{step}") for step in range(last + 1)]
        blocks += [f"{inside}.{name}{{fill:var(--{name})}}" for name, _ in names]
        blocks += [f"{inside}.inside.{name}{{fill:var(--{name})}}" for _, name in names]
    blocks += [
        f"{inside}.a{step}{{background:var(--s{step});color:var(--u{step})}}"
        for step in range(SEQUENTIAL_STEPS + 1)
    ]
    return "\n".join(blocks)


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio, 1 to 21, of two `#rrggbb` colours."""
    bright, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def theme(name: str) -> dict[str, str]:
    """Every colour of the `light` or `dark` theme by its variable's name (without dashes)."""
    ramps = _RAMPS[name]
    colours = dict(_SURFACES[name])
    for step in range(-DIVERGING_STEPS, DIVERGING_STEPS + 1):
        stops = ramps["positive" if step > 0 else "negative"]
        fill = _along(stops, abs(step) / DIVERGING_STEPS)
        colours[f"d{step + DIVERGING_STEPS}"] = fill
        colours[f"e{step + DIVERGING_STEPS}"] = _readable_on(fill, name)
    for step in range(SEQUENTIAL_STEPS + 1):
        fill = _along(ramps["amount"], step / SEQUENTIAL_STEPS)
        colours[f"s{step}"] = fill
        colours[f"u{step}"] = _readable_on(fill, name)
    return colours


def _variables(name: str) -> str:
    return "".join(f"--{key}:{colour};" for key, colour in theme(name).items())


def _along(stops: tuple[str, ...], share: float) -> str:
    place = share * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    mixed = (
        round(a + (b - a) * (place - index))
        for a, b in zip(_channels(stops[index]), _channels(stops[index + 1]), strict=True)
    )
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _readable_on(fill: str, name: str) -> str:
    """The theme's ink, or black or white on the few fills between that only these are read on."""
    ink = max(_INK[name], key=lambda ink: contrast(ink, fill))
    if contrast(ink, fill) >= _READABLE:
        return ink
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, fill))


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    def linear(channel: int) -> float:
        share = channel / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(channel) for channel in _channels(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
