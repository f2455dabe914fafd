"""The report's sections about what is read off without touching: lens, attribution, attention."""

from __future__ import annotations

from collections.abc import Sequence

from cutaway.observe import Attribution
from cutaway.study import figures as draw
from cutaway.study import sentences as say
from cutaway.study.attention import Attention
from cutaway.study.lens import Lenses
from cutaway.study.stage import Inputs
from cutaway.views import Figure, Section

LENS, WRITES, LOOKS = (
    "From which layer on can the answer be read?", "Which parts write the answer?",
    "Where do the strongest heads look?",
)  # fmt: skip
"""The sections' headings."""


def logit_lens(inputs: Inputs) -> Section:
    """What each layer would answer."""
    lenses = inputs.of(Lenses)
    n = lenses.clean.logit_diff.sizes["example"]
    return Section(
        heading=LENS,
        sentences=(
            "The logit lens reads the residual stream after each layer as if it were the last: "
            f"through the final norm and the unembedding. Means over {n} prompts.",
        ),
        figures=(draw.lens_grid(lenses), draw.lens_lines(lenses)),
        reproduce="study.lens.clean.mean",
    )


def direct_attribution(inputs: Inputs) -> Section:
    """Which parts write the answer."""
    found = inputs.of(Attribution)
    n = found.values.sizes["example"]
    return Section(
        heading=WRITES,
        sentences=(
            "With the final norm’s scale held still, the logit difference is a sum of what every "
            f"head, MLP and embedding adds directly. Means over {n} clean prompts.",
            say.attribution(found),
        ),
        figures=(draw.components(found), draw.head_contributions(found)),
        reproduce="study.attribution.top(10)",
    )


def attention(inputs: Inputs) -> Section:
    """Where the strongest heads look."""
    found = inputs.of(Attention)
    heads = [str(head) for head in found.patterns.values["head"].to_numpy()]
    drawn: Sequence[Figure] = [draw.looking(found), *draw.patterns(found)]
    return Section(
        heading=LOOKS,
        sentences=tuple(say.looks(found.to, head) for head in heads),
        figures=tuple(drawn),
        reproduce="study.attention.to.mean",
    )
