"""A language model by other hands: EAP-IG's best edges keep its pronouns on pairs they never saw.

Each half of the pairs is held out once, with the circuit found on the other half. How edges are
ranked and selected is chosen on that other half as well, so that nothing is fitted to what is
measured.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.circuits import Circuit, EdgeScores, Masked, Ratio, discover, greedy, top_n
from cutaway.circuits.faithfulness import measured

SHARED = Path(__file__).parents[2] / "../shared"
MODEL, PAIRS = SHARED / "models/stories260k", SHARED / "data/pronouns_stories260k.csv"


@pytest.fixture(scope="module")
def stories() -> tuple[Masked, Behaviour]:
    if not MODEL.exists() or not PAIRS.exists():
        pytest.skip("needs stories260k and its pronoun pairs in ../shared")
    model = cutaway.open(str(MODEL))
    return Masked(model), Behaviour.from_csv(PAIRS, model.tokenizer)


def candidates(scores: EdgeScores, size: int) -> dict[str, Circuit]:
    return {
        f"{select.__name__} by {by}": select(scores, size, by=by)
        for select in (greedy, top_n)
        for by in ("score", "magnitude")
    }


def halves(pairs: Behaviour) -> Iterator[tuple[Behaviour, Behaviour]]:
    split = pairs.hold_out(0.5, seed=0)
    one, other = split.split("train"), split.split("held-out")
    yield one, other
    yield other, one


def test_the_top_5_percent_keep_four_fifths_on_held_out_pairs(
    stories: tuple[Masked, Behaviour],
) -> None:
    on, pairs = stories
    size = round(0.05 * len(on.graph))
    values: list[np.ndarray] = []
    ends: list[tuple[np.ndarray, np.ndarray]] = []
    for found_on, held in halves(pairs):
        scores = discover(on, found_on, "eap-ig")
        circuits = candidates(scores, size)
        kept = np.stack([circuit.kept for circuit in circuits.values()])
        own = measured(on, found_on, kept)
        best = int(np.argmin([abs(1 - own.ratio(place).mean) for place in range(len(circuits))]))
        print(f"chosen on {len(found_on)} pairs: {list(circuits)[best]}")
        assert kept[best].sum() == size
        there = measured(on, held, kept[best : best + 1])
        values.append(there.values[0])
        ends.append((there.clean, there.ablated))
    clean, ablated = (np.concatenate(side) for side in zip(*ends, strict=True))
    ratio = Ratio.of(np.concatenate(values), clean, ablated)
    print(f"{size} of {len(on.graph)} edges keep {ratio} of the effect on held-out pairs")
    assert ratio.mean >= 0.8
