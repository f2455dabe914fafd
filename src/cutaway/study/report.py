"""The report stage: a study's results as a page that a person reads.

Every section is a function from results to a `Section`; every sentence and figure is computed from
the numbers it stands beside (`sentences`, `figures`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cutaway.behaviours import Behaviour
from cutaway.behaviours import breakdown as break_down
from cutaway.observe import Attribution
from cutaway.study import circuit_sections as circuit
from cutaway.study import figures as draw
from cutaway.study import patching_figures as draw_patching
from cutaway.study import patching_sentences as say_patching
from cutaway.study import redteam_section, scrubbing_section
from cutaway.study import sentences as say
from cutaway.study.attention import Attention
from cutaway.study.blackbox import BlackBox, answer_texts
from cutaway.study.discovery import Discovered
from cutaway.study.estimates import Estimated
from cutaway.study.evaluation import Evaluated
from cutaway.study.lens import Lenses
from cutaway.study.patching import Patching
from cutaway.study.paths import Paths
from cutaway.study.places import place_name, places
from cutaway.study.roles import Roles
from cutaway.study.scrubbing import Scrubbing
from cutaway.study.settings import Settings
from cutaway.study.stage import Inputs, Skipped
from cutaway.study.verdict import RedTeam
from cutaway.views import ExamplePrompt, Fact, Figure, Report, Section, Table

_EXAMPLES = 6


def assemble(inputs: Inputs) -> Report:
    """The whole report."""
    box, lenses = inputs.of(BlackBox), inputs.of(Lenses)
    attribution, patching = inputs.of(Attribution), inputs.of(Patching)
    along, looking = inputs.of(Paths), inputs.of(Attention)
    behaviour, origin = inputs.behaviour, inputs.origin
    name = str(origin["model"]["name"])
    return Report(
        title=_title(behaviour),
        subtitle=f"{behaviour.name} in {name}, {len(behaviour)} prompt pairs",
        summary=tuple(say.summary(inputs.results)),
        facts=facts(box, attribution, patching),
        sections=(
            the_behaviour(inputs, box),
            black_box(inputs, box),
            logit_lens(lenses),
            direct_attribution(attribution),
            activation_patching(patching),
            attribution_patching(inputs.of(Estimated), patching),
            path_patching(along),
            attention(looking),
            *the_circuit(inputs),
            hypothesis(inputs),
            red_team(inputs),
        ),
        reproduce=_commands(origin),
        provenance=_provenance(origin, behaviour, inputs.settings),
    )


def _title(behaviour: Behaviour) -> str:
    """The behaviour's full name, where its description begins with one."""
    name, colon, _ = behaviour.description.partition(":")
    return name if colon and len(name) <= 60 else behaviour.name


def facts(box: BlackBox, attribution: Attribution, patching: Patching) -> tuple[Fact, ...]:
    """The numbers that stand large at the top."""
    found = [
        Fact(
            label="accuracy",
            value=draw.estimate(box.interval("accuracy")),
            percent=True,
            note=f"{box.n} clean prompts",
        ),
        Fact(
            label="logit difference",
            value=draw.estimate(box.interval("logit_diff")),
            note=f"{box.n} clean prompts",
        ),
    ]
    if 0 < box.n_held_out < box.n:
        held_out = box.interval("accuracy", held_out=True)
        found.append(
            Fact(
                label="accuracy, held out", value=draw.estimate(held_out), percent=True,
                note=f"{box.n_held_out} prompts kept aside",
            )
        )  # fmt: skip
    heads = patching.heads_denoise
    best = heads.top(1).to_dict("records")[0]
    value = draw.Estimate(*(float(best[key]) for key in ("effect", "low", "high")))
    found.append(
        Fact(
            label=f"{say_patching.cell_name(heads, best)}, put back alone", value=value,
            note=f"change of the {say_patching.measured(heads)}, {patching.n} examples",
        )
    )  # fmt: skip
    return tuple(found)


def the_behaviour(inputs: Inputs, box: BlackBox) -> Section:
    """What is studied, with prompts."""
    behaviour = inputs.behaviour
    kept = sum(behaviour.held_out)
    told = f"{len(behaviour)} pairs" + (f", {kept} of them held out" if kept else "")
    shown = range(min(_EXAMPLES, len(behaviour)))
    return Section(
        heading="The behaviour",
        sentences=(
            behaviour.description,
            f"{told}. Each clean prompt has a corrupt twin of as many tokens, which differs where "
            "it is marked; the metric compares the correct answer’s logit with the wrong one’s.",
        ),
        examples=tuple(_example(inputs, box, row) for row in shown),
    )


def _example(inputs: Inputs, box: BlackBox, row: int, prefix: str = "") -> ExamplePrompt:
    """One pair as its tokens, with what the model said."""
    behaviour = inputs.behaviour
    first = int(behaviour.clean.first[row])
    gap, probability = box.each("logit_diff")[row], float(box.top_probability[row])
    texts = [answer_texts(inputs.model, [[token] for token in side[row]])
             for side in (behaviour.answers, behaviour.wrong_answers)]  # fmt: skip
    return ExamplePrompt(
        tokens=behaviour.token_texts[row],
        answers=tuple(texts[0]),
        wrong_answers=tuple(texts[1]),
        labels={name: int(at[row]) - first for name, at in behaviour.clean.labels.items()},
        corrupt_tokens=behaviour.corrupt_token_texts[row],
        note=f"{prefix}The model’s likeliest next token is {str(box.top_text.to_numpy()[row])!r} "
        f"({say.percent(probability)}); logit difference {say.plain(gap)}.",
    )


def black_box(inputs: Inputs, box: BlackBox) -> Section:
    """How well the model does it, and where it fails."""
    behaviour = inputs.behaviour
    values = {name: box.each(name) for name in ("accuracy", "logit_diff")}
    table: pd.DataFrame = break_down(behaviour, values, seed=inputs.settings.seed)
    by_variation = draw.variations(box, table)
    drawn = [draw.examples(box), *([by_variation] if by_variation else [])]
    told = (say.accuracy(box), say.held_out(box), say.corruption(box))
    order = np.argsort(box.each("logit_diff"), kind="stable")
    extremes = [(int(order[-1]), "The best. "), (int(order[0]), "The worst. ")]
    return Section(
        heading="From outside",
        sentences=tuple(sentence for sentence in told if sentence),
        examples=tuple(_example(inputs, box, row, word) for row, word in extremes),
        figures=tuple(drawn),
        table=_measures(box),
    )


def _measures(box: BlackBox) -> Table:
    """Every measure with its interval, clean, held out and corrupt."""
    kinds: list[tuple[str, str, bool | None]] = [("clean", "clean", None)]
    if 0 < box.n_held_out < box.n:
        kinds.append(("clean, held out", "clean", True))
    kinds.append(("corrupt, with the clean answers", "corrupt", None))
    rows = tuple(
        (
            name,
            *(
                say.with_ends(box.interval(measure, run, held_out=kept), as_percent=percent)
                for measure, percent in (
                    ("accuracy", True), ("logit_diff", False), ("prob_diff", False),
                )
            ),
        )
        for name, run, kept in kinds
    )  # fmt: skip
    return Table(
        caption="Means over prompts with 95 % bootstrap intervals",
        columns=("prompts", "accuracy", "logit difference", "probability difference"),
        rows=rows,
    )


def logit_lens(lenses: Lenses) -> Section:
    """What each layer would answer."""
    n = lenses.clean.logit_diff.sizes["example"]
    return Section(
        heading="Layer by layer",
        sentences=(
            "The logit lens reads the residual stream after each layer as if it were the last: "
            f"through the final norm and the unembedding. Means over {n} prompts.",
        ),
        figures=(draw.lens_grid(lenses), draw.lens_lines(lenses)),
    )


def direct_attribution(found: Attribution) -> Section:
    """Which parts write the answer."""
    n = found.values.sizes["example"]
    return Section(
        heading="Which parts write the answer",
        sentences=(
            "With the final norm’s scale held still, the logit difference is a sum of what every "
            f"head, MLP and embedding adds directly. Means over {n} clean prompts.",
            say.attribution(found),
        ),
        figures=(draw.components(found), draw.head_contributions(found)),
    )


def activation_patching(found: Patching) -> Section:
    """Which parts carry it, by moving one at a time."""
    return Section(
        heading="Which parts carry it",
        sentences=(
            "One activation at a time is moved between the clean and the corrupt run. Moved into "
            "the corrupt run it shows what is enough to bring the answer back, moved into the "
            f"clean run what is needed for it. {found.n} examples.",
            say_patching.main_heads(found),
            say_patching.path_of_stream(found.stream_denoise),
        ),
        figures=(
            *draw_patching.patched_heads(found),
            *draw_patching.patched_stream(found),
            *draw_patching.patched_mlps(found),
        ),
    )


def attribution_patching(found: Estimated, exact: Patching) -> Section:
    """Every head and MLP at every place, from gradients."""
    effects = found.heads_at.effects
    return Section(
        heading="Which parts carry it, place by place",
        sentences=(
            "Attribution patching estimates every cell at once: what would be moved, times the "
            f"gradient of the {say_patching.measured(effects)} there. It is a first guess, cheap "
            "enough for every head at every place; beside it stands what patching really does. "
            f"Clean into corrupt, {effects.values.sizes['example']} examples.",
        ),
        figures=tuple(draw_patching.estimates(found, exact)),
    )


def path_patching(found: Paths) -> Section:
    """Along which paths the strongest heads work."""
    return Section(
        heading="Along which paths",
        sentences=(
            "Path patching changes what one head sends to chosen receivers and leaves everything "
            "else as it was. From the logits backwards: first each head’s direct path to them, "
            "then the paths from earlier heads into the strongest heads’ queries, keys and values. "
            f"Corrupt into clean, {found.n} examples.",
            say_patching.trail(found),
        ),
        figures=tuple(draw_patching.paths(found)),
    )


def attention(found: Attention) -> Section:
    """Where the strongest heads look."""
    heads = [str(head) for head in found.patterns.values["head"].to_numpy()]
    drawn: Sequence[Figure] = [draw.looking(found), *draw.patterns(found)]
    return Section(
        heading="Where the strongest heads look",
        sentences=tuple(say.looks(found.to, head) for head in heads),
        figures=tuple(drawn),
    )


def the_circuit(inputs: Inputs) -> Iterator[Section]:
    """The circuit's sections, or why there is none."""
    missing = inputs.skipped("discovery") or inputs.skipped("evaluation")
    checked = None if missing else inputs.of(Evaluated)
    if inputs.skipped("discovery") is None:
        story = None if inputs.skipped("scrubbing") else inputs.of(Scrubbing)
        drawn = circuit.picture(inputs.of(Discovered), checked, inputs.of(Roles), story)
        yield circuit.discovery(inputs.of(Discovered), inputs.settings, drawn)
    if missing is None:
        yield circuit.evaluation(inputs.of(Evaluated), inputs.of(Discovered))
    else:
        heading = circuit.FOUND if inputs.skipped("discovery") else circuit.CHECKED
        yield _not_done(heading, missing)


def hypothesis(inputs: Inputs) -> Section:
    """What the parts are claimed to do, tested, or why nothing was."""
    skipped = inputs.skipped("scrubbing")
    if skipped is None:
        return scrubbing_section.section(inputs.of(Scrubbing))
    return _not_done(scrubbing_section.HEADING, skipped)


def red_team(inputs: Inputs) -> Section:
    """What was tried against the finding, or why nothing was."""
    skipped = inputs.skipped("redteam")
    if skipped is None:
        return redteam_section.section(inputs.of(RedTeam))
    return _not_done(redteam_section.HEADING, skipped)


def _not_done(heading: str, skipped: Skipped) -> Section:
    return Section(heading=heading, sentences=(f"Not done: {skipped.reason}",))


def _commands(origin: Mapping[str, Any]) -> str:
    """The command line, where there was one, and the Python."""
    parts = [str(origin["command"]), *(["# or in Python"] if origin["command"] else [])]
    return "\n".join([*(part for part in parts if part), str(origin["python"])])


def _provenance(
    origin: Mapping[str, Any], behaviour: Behaviour, settings: Settings
) -> dict[str, object]:
    """Model, data, settings and versions, one line each."""
    model, data = origin["model"], origin["behaviour"]
    sizes = f"{model['n_layers']} layers, {model['n_heads']} heads, width {model['d_model']}"
    return {
        "model": f"{model['name']} ({model['family']}, {sizes}, {model['dtype']})",
        "model fingerprint": model["fingerprint"],
        "device": model["device"],
        "behaviour": f"{data['name']}, {data['n']} pairs, {data['held_out']} held out",
        "behaviour fingerprint": data["fingerprint"],
        **{f"behaviour {key}": value for key, value in data["provenance"].items() if value},
        "places": ", ".join(place_name(place) for place in places(behaviour)),
        **{name.replace("_", " "): value for name, value in origin["settings"].items()},
        **dict(origin["versions"]),
    }
