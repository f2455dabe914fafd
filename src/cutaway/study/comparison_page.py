"""A comparison of two studies as a page of its own, and as figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cutaway.study.comparison import Heads, StudyComparison, Verdicts, ends
from cutaway.study.saving import replace_file
from cutaway.views import Report, Section, Table, scatter, write
from cutaway.views.text import number, p_value

_SHOWN = 10


def save_comparison(found: StudyComparison, path: str | Path) -> Path:
    """Write one HTML file that needs nothing else, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, lambda part: write(page(found), part))
    return target


def page(found: StudyComparison) -> Report:
    """The page: a summary, then each part that could be compared."""
    return Report(
        title="Two studies compared",
        subtitle=f"{found.names[0]} beside {found.names[1]}",
        summary=tuple(found.sentences()[1:]),
        sections=tuple(_sections(found)),
        provenance={"first": found.names[0], "second": found.names[1]},
    )


def _sections(found: StudyComparison) -> Iterator[Section]:
    one, other = found.names
    if found.measures:
        yield Section(
            heading="In numbers",
            sentences=(
                "Means with 95 % intervals; a difference is the first study less the second, and "
                "its p-value is corrected for the measures.",
            ),
            table=Table(
                caption="What was measured in both", rows=tuple(found.rows()),
                columns=("measure", one, other, "difference", "corrected p", "verdict"),
            ),
        )  # fmt: skip
    for each in found.heads:
        yield _heads(each, found.names)
    if found.circuits is not None:
        yield Section(
            heading="Circuits",
            sentences=("What the two circuits have in common, and as much by chance.",),
            table=Table(
                caption="Shared, of what is in either",
                columns=("level", "shared", "by chance", "corrected p", "scores’ rank correlation"),
                rows=tuple(
                    (
                        str(row["level"]), number(row["similarity"]), number(row["by_chance"]),
                        p_value(row["p_corrected"]), number(row["rank_correlation"]),
                    )
                    for row in found.circuits.to_dict("records")
                ),
            ),
        )  # fmt: skip
    for heading, verdicts in (("Roles", found.roles), ("Attacks", found.attacks)):
        if verdicts:
            yield _verdicts(heading, verdicts, found.names)


def _heads(each: Heads, names: tuple[str, str]) -> Section:
    rows = each.table.to_dict("records")
    rows.sort(key=lambda row: -abs(row["difference"]))
    apart = ", ".join(each.differing) or "none"
    return Section(
        heading=each.name[:1].upper() + each.name[1:],
        sentences=(
            f"As a share of the behaviour, head by head. The two correlate by "
            f"{ends(each.correlation)} over {len(rows)} heads. Shown to differ (p < 0.05, "
            f"corrected for all heads): {apart}.",
        ),
        figures=(
            scatter(
                each.table["one"].to_numpy(), each.table["other"].to_numpy(),
                [f"head {head}" for head in each.table["head"]],
                title=f"{each.name[:1].upper() + each.name[1:]}, in one study and the other",
                shows="Each dot is a head; on the diagonal both studies give it the same share.",
                across_axis=names[0], up_axis=names[1],
            ),
        ),
        table=Table(
            caption=f"The {min(_SHOWN, len(rows))} heads that are furthest apart",
            columns=("head", *names, "difference", "corrected p"),
            rows=tuple(
                (
                    str(row["head"]), number(row["one"]), number(row["other"]),
                    ends((row["difference"], row["low"], row["high"])),
                    "–" if row["p"] != row["p"] else p_value(row["p"]),
                )
                for row in rows[:_SHOWN]
            ),
        ),
    )  # fmt: skip


def _verdicts(heading: str, found: Sequence[Verdicts], names: tuple[str, str]) -> Section:
    return Section(
        heading=heading,
        sentences=("What each study says; a dash where it did not test it.",),
        table=Table(
            caption=f"{heading} with both verdicts",
            columns=("", *names),
            rows=tuple((each.about, each.one, each.other) for each in found),
        ),
    )
