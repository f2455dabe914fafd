"""The reliability diagram: what is drawn is what was given."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cutaway.views import Estimate, ViewError
from cutaway.views.reliability import reliability

ACCURACY = (Estimate(0.6, 0.5, 0.7), Estimate(0.95, 0.9, 1.0))


def test_each_bin_is_a_dot_and_the_diagonal_is_where_they_would_be() -> None:
    found = reliability([0.62, 0.95], ACCURACY, [10, 12], title="Sure", shows="It is.")
    dots = [
        (float(x), float(y))
        for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', str(found.svg))
    ]
    assert len(dots) == 2
    ends = re.search(
        r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="reference"',
        str(found.svg),
    )
    assert ends is not None
    x1, y1, x2, y2 = map(float, ends.groups())
    above = [(y1 + (x - x1) * (y2 - y1) / (x2 - x1)) - y for x, y in dots]
    # 0.62 sure and 0.6 right lies below; 0.95 and 0.95 on it
    assert above[0] < -1
    assert above[1] == pytest.approx(0, abs=0.1)
    assert found.table is not None
    assert found.table.rows[0][0] == "62.0\u00a0%"
    assert found.table.rows[1][2] == "12"
    assert found.narrow
    assert "0.6" not in found.alt.split("It is.")[1]


def test_numbers_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ViewError, match="1 accuracy"):
        reliability([0.6, 0.9], ACCURACY[:1], [1, 2], title="", shows="")
    with pytest.raises(ViewError, match="2 axes|of 1 axes"):
        reliability(np.ones((2, 2)), ACCURACY, [1, 2], title="", shows="")
