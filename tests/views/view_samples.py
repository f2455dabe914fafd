"""Small invented results, one of every kind of figure, for the tests of views."""

import numpy as np

from cutaway.views import (
    CircuitEdge,
    CircuitNode,
    CircuitSize,
    CircuitView,
    Estimate,
    ExamplePrompt,
    Fact,
    Figure,
    Part,
    Point,
    Reading,
    Report,
    Section,
    Series,
    Table,
    Total,
    Variation,
    attention,
    bars,
    breakdown,
    circuit,
    distribution,
    heatmap,
    lens,
    lens_curve,
    scatter,
    story,
)

TOKENS = ("<s>", "When", " Mary", " and", " John", " left", ",", " John", " told")
HOSTILE = [
    "<script>window.broken = 1</script>",
    '"><img src=x onerror="window.broken = 1">',
    "' onmouseover='window.broken = 1",
    "</style></script></title>--><svg onload=window.broken=1>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202eevil\u2066",
    "\x00\x07\x1b",
    "\ud800",
    "👩\u200d👧🇬🇧",
    "javascript:window.broken=1",
    "]]>&amp;&#60;",
    "مرحبا \u200fשלום",
    "</script><script>window.broken = 1</script>",
    "'\"`${window.broken = 1}",
]
"""What a prompt or a name may hold."""

COMMAND = "cutaway study ioi --n 200"


def estimate(mean: float, half: float = 0.1) -> Estimate:
    return Estimate(mean, mean - half, mean + half)


def pattern(count: int) -> np.ndarray:
    weights = np.tril(np.random.default_rng(1).random((count, count)))
    return weights / weights.sum(axis=1, keepdims=True)


def circuit_view(name: str = "writes the answer", *, size: int | None = None) -> CircuitView:
    """Two layers of three heads, seven edges; `name` goes wherever text from data may go."""
    heads = [
        CircuitNode(
            name=f"a{layer}.h{index}", kind="head", layer=layer, index=index, role=name,
            attends=(Reading(text=name, value=0.75), Reading(text="end", value=0.2)),
            writes=(Reading(text=name, value=1.5), Reading(text="b", value=-0.5)),
        )
        for layer in range(2) for index in range(3)
    ]  # fmt: skip
    mlps = [CircuitNode(name=f"m{layer}", kind="mlp", layer=layer) for layer in range(2)]
    ways = [
        ("input", "m0", "", 4.0), ("a1.h2", "logits", "", 3.0), ("m0", "a1.h2", "v", 2.0),
        ("a0.h1", "m0", "", -1.5), ("m0", "a1.h0", "q", 1.0), ("a1.h0", "logits", "", -0.5),
        ("a0.h1", "a1.h2", "k", 0.25),
    ]  # fmt: skip
    edges = [
        CircuitEdge(source=a, target=b, port=port, score=score, rank=rank, inclusion=1 / rank)
        for rank, (a, b, port, score) in enumerate(ways, start=1)
    ]
    sizes = [
        CircuitSize(edges=edges, faithfulness=estimate(mean), controls=(0.0, 0.1))
        for edges, mean in ((2, 0.25), (4, 0.75), (7, 0.95), (40, 1.0))
    ]
    return CircuitView(
        title=name, shows=f"A sentence about {name}.", n_layers=2, n_heads=3, n_kv_heads=3,
        total=40, edges=tuple(edges), sizes=tuple(sizes), size=size, score_name=name,
        nodes=(
            CircuitNode(name="input", kind="input"), *heads, *mlps,
            CircuitNode(name="logits", kind="logits"),
        ),
        attends_name="attention from end", writes_name="effect on the answer", reproduce=name,
    )  # fmt: skip


def figures(tokens: tuple[str, ...] = TOKENS, name: str = "L0H1") -> list[Figure]:
    """One figure of each kind; `tokens` and `name` go wherever text from data may go."""
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(3, 4))
    grid[1, 2] = np.nan
    said = {"shows": f"A sentence about {name}.", "reproduce": f"{COMMAND} {name}"}
    many = [f"{name}.{index}" for index in range(30)]
    total = Total(parts=estimate(2.5), measured=estimate(2.5), largest_gap=1e-6)
    values = rng.normal(size=30)
    return [
        heatmap(
            grid,
            ["0", "1", "2"],
            [*"012", name],
            title=name,
            measure=name,
            ends=(name, name),
            lows=grid - 0.2,
            highs=grid + 0.2,
            **said,
        ),
        lens(rng.normal(size=(2, len(tokens))), ["0", "1"], tokens, **said),
        lens_curve(
            [Series(name=name, estimates=(estimate(0), estimate(1)))], ["embed", name], **said
        ),
        bars([name, "b"], [1.5, -0.5], [1, -1], [2, 0], title=name, total=total, **said),
        bars(many, values, values - 1, values + 1, title=name, groups=[name] * 30, **said),
        attention(pattern(len(tokens)), tokens, title=name, part="a1.h2", **said),
        breakdown(
            [
                Variation(
                    kind=name,
                    value=name,
                    n=7,
                    accuracy=estimate(0.9),
                    logit_difference=estimate(2),
                )
            ],
            overall_accuracy=0.9,
            **said,
        ),
        distribution(rng.normal(3, 1, 50), rng.normal(-3, 1, 50), names=(name, "corrupt"), **said),
        heatmap(
            abs(grid), ["0", "1", name], list("0123"), title=name, p=grid**2, signed=False, **said
        ),
        scatter([1.0, -2.0, np.nan, 0.1], [1.1, 2.0, 1.0, 0.1], [name, *"abc"], title=name, **said),
        circuit(circuit_view(name)),
    ]


def report(tokens: tuple[str, ...] = TOKENS, name: str = "L0H1", *, n_examples: int = 6) -> Report:
    """A report with something of everything in it."""
    example = ExamplePrompt(
        tokens=tokens,
        corrupt_tokens=(*tokens[:-1], name),
        answers=(tokens[0], name),
        wrong_answers=(name,),
        labels={name: 0, "end": len(tokens) - 1},
        note=name,
    )
    table = Table(caption=name, columns=("a", name), rows=((name, "1"), ("b", name)))
    return Report(
        title=f"Title {name}",
        subtitle=name,
        summary=(f"Summary {name}",),
        points=(
            Point(
                heading=name,
                sentences=(name, "Head 1.2 and MLPs 0 and 9."),
                examples=(example,),
                figure=story(circuit_view(name)),
                more="Second section",
                reproduce=name,
                facts=(Fact(label=name, value=estimate(0.75), percent=True, note=name),),
            ),
            Point(heading="Nothing done", sentences=("Not done: too few.",), more="No section"),
        ),
        parts=(
            Part(name="a1.h2", called="head 1.2", role=name, facts=((name, name), ("b", "c"))),
            Part(name="m0", called="MLP 0", facts=(("adds", name),)),
        ),
        given=name,
        sections=(
            Section(
                heading=name,
                sentences=(name,),
                examples=(example,) * n_examples,
                figures=tuple(figures(tokens, name)),
                table=table,
                reproduce=name,
                provenance={name: name},
            ),
            Section(heading="Second section"),
        ),
        reproduce=f"{COMMAND} {name}",
        provenance={name: name, "seed": 0},
    )
