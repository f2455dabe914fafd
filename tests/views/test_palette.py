import re

import pytest

from cutaway.views.palette import (
    DIVERGING_STEPS,
    SEQUENTIAL_STEPS,
    contrast,
    diverging_step,
    sequential_step,
    theme,
    theme_css,
)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_reads_on_every_colour(name: str) -> None:
    colours = theme(name)
    pairs = [(f"d{i}", f"e{i}") for i in range(2 * DIVERGING_STEPS + 1)]
    pairs += [(f"s{i}", f"u{i}") for i in range(SEQUENTIAL_STEPS + 1)]
    assert min(contrast(colours[fill], colours[text]) for fill, text in pairs) >= 4.2
    for ground in ("page", "card", "band"):
        for text in ("ink", "soft", "positive", "good"):
            assert contrast(colours[ground], colours[text]) >= 4.5, (ground, text)
        assert contrast(colours[ground], colours["negative"]) >= 4.0


@pytest.mark.parametrize("name", ["light", "dark"])
def test_ramps_grow_steadily_away_from_the_page(name: str) -> None:
    colours = theme(name)
    for ramp in (
        [f"d{DIVERGING_STEPS + i}" for i in range(DIVERGING_STEPS + 1)],
        [f"d{DIVERGING_STEPS - i}" for i in range(DIVERGING_STEPS + 1)],
        [f"s{i}" for i in range(SEQUENTIAL_STEPS + 1)],
    ):
        away = [contrast(colours[ramp[0]], colours[step]) for step in ramp]
        assert away == sorted(away)
        assert away[-1] > 5


def test_both_themes_set_the_same_variables_and_every_used_one_is_set() -> None:
    assert theme("light").keys() == theme("dark").keys()
    used = set(re.findall(r"var\(--([a-z0-9]+)\)", theme_css()))
    assert used <= theme("light").keys()


def test_steps_are_symmetric_centred_and_clipped() -> None:
    assert diverging_step(0, 3) == DIVERGING_STEPS
    assert diverging_step(9, 3) == 2 * DIVERGING_STEPS
    assert diverging_step(-9, 3) == 0
    for value in (0.1, 0.7, 1.3):
        assert diverging_step(value, 3) + diverging_step(-value, 3) in (40, 41)
    assert [sequential_step(v) for v in (-1, 0, 1, 2)] == [0, 0, SEQUENTIAL_STEPS, SEQUENTIAL_STEPS]
