"""The report's section about the hypothesis: what it claims, and how much of it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cutaway.circuits import Ratio, Scrubbed
from cutaway.study.circuit_sentences import ratio
from cutaway.study.scrubbing import ENOUGH, Scrubbing, verdict
from cutaway.views import Section, Table

HEADING = "Is the story right?"


def summary(found: Scrubbing) -> str:
    """The summary's sentence."""
    claim = found.claimed.hypothesis["description"]
    return (
        f"Hypothesis: {claim} Causal scrubbing recovers {ratio(found.claimed.recovered)} of the "
        f"behaviour: {verdict(found.claimed)}. A wrong one recovers "
        f"{ratio(found.wrong.recovered)}: {verdict(found.wrong)}."
    )


def section(found: Scrubbing) -> Section:
    """The hypothesis, its verdict, and each claim of it."""
    prompts = found.claimed.clean.sizes["example"]
    return Section(
        heading=HEADING,
        sentences=(
            "A hypothesis says which parts matter and what of the prompt each of them is about. "
            "Causal scrubbing gives every part another prompt that agrees on just that, all at "
            f"once, and sees what is left of the behaviour ({prompts} prompts in which few names "
            f"or words come again and again). Above {ENOUGH} with all of its interval a "
            "hypothesis is supported, below it refuted.",
            summary(found),
            f"The wrong one: {found.wrong.hypothesis['description']}",
        ),
        table=_claims(found.claimed),
        reproduce="print(study.scrubbing.claimed)",
    )


def _claims(found: Scrubbed) -> Table:
    rows = found.claims.to_dict("records")
    return Table(
        caption="Each claim: recovered when it alone is tested, and when its node is left out",
        columns=("claim", "parts", "is about", "alone", "without it"),
        rows=tuple(
            (
                str(row["claim"]), str(row["parts"]) or "all others", str(row["agrees"]),
                *(_ratio(row, name) for name in ("alone", "without")),
            )
            for row in rows
        ),
    )  # fmt: skip


def _ratio(row: Mapping[Any, Any], name: str) -> str:
    if np.isnan(row[name]):
        return "–"
    return ratio(Ratio(mean=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"]))
