"""The report's sections about patching: one activation at a time, estimates, and paths."""

from __future__ import annotations

from cutaway.study import patching_figures as draw
from cutaway.study import patching_sentences as say
from cutaway.study.estimates import Estimated
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.stage import Inputs
from cutaway.views import Section

CARRIES, PLACES, PATHS = (
    "Which parts carry it?", "Which parts carry it, place by place?", "Along which paths?",
)  # fmt: skip
"""The sections' headings."""


def activation_patching(inputs: Inputs) -> Section:
    """Which parts carry it, by moving one at a time."""
    found = inputs.of(Patching)
    return Section(
        heading=CARRIES,
        sentences=(
            "One activation at a time is moved between the clean and the corrupt run. Moved into "
            "the corrupt run it shows what is enough to bring the answer back, moved into the "
            f"clean run what is needed for it. {found.n} examples.",
            say.main_heads(found),
            say.path_of_stream(found.stream_denoise),
        ),
        figures=(
            *draw.patched_heads(found),
            *draw.patched_stream(found),
            *draw.patched_mlps(found),
        ),
        reproduce="study.patching.strongest(3), study.patching.stream_denoise.mean",
    )


def attribution_patching(inputs: Inputs) -> Section:
    """Every head and MLP at every place, from gradients."""
    found, exact = inputs.of(Estimated), inputs.of(Patching)
    effects = found.heads_at.effects
    return Section(
        heading=PLACES,
        sentences=(
            "Attribution patching estimates every cell at once: what would be moved, times the "
            f"gradient of the {say.measured(effects)} there. It is a first guess, cheap "
            "enough for every head at every place; beside it stands what patching really does. "
            f"Clean into corrupt, {effects.values.sizes['example']} examples.",
        ),
        figures=tuple(draw.estimates(found, exact)),
        reproduce="study.estimates.heads.agreement",
    )


def path_patching(inputs: Inputs) -> Section:
    """Along which paths the strongest heads work."""
    found = inputs.of(Paths)
    return Section(
        heading=PATHS,
        sentences=(
            "Path patching changes what one head sends to chosen receivers and leaves everything "
            "else as it was. From the logits backwards: first each head’s direct path to them, "
            "then the paths from earlier heads into the strongest heads’ queries, keys and values. "
            f"Corrupt into clean, {found.n} examples.",
            say.trail(found),
        ),
        figures=tuple(draw.paths(found)),
        reproduce="[step.effects.top(3) for step in study.paths.steps]",
    )
