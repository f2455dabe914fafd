"""Causal scrubbing against naive recomputation, the masked forward and identities."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from tests.circuits.each_family import masked
from tests.model.variants import ONE_OF_EACH_KIND, VARIANTS
from torch import Tensor

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import Graph, Masked, Reader, recomputing
from cutaway.circuits.features import Feature, feature
from cutaway.circuits.hypotheses import Hypothesis, Kind, Node
from cutaway.circuits.scrubbed import Scrubbed
from cutaway.circuits.scrubbing import Unimportant, scrub
from cutaway.circuits.stand_ins import StandIns
from cutaway.circuits.written import Written, sites, written
from cutaway.model import Model, replace
from cutaway.model.run import Run

WHOLE = "the whole prompt"


def prompts(n: int, *, length: int = 6, seed: int = 0) -> Behaviour:
    """Random prompts of one length; the third token is one of two, the fourth one of three."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(3, 96, (n, length), generator=generator)
    rows[:, 2] = torch.arange(n) % 2 + 10
    rows[:, 3] = torch.arange(n) % 3 + 20
    return Behaviour.from_tokens(
        rows.tolist(), rows.flip(0).tolist(),
        answers=[5 + row % 3 for row in range(n)], wrong_answers=[9] * n,
        labels={"two": [2] * n, "three": [3] * n, "end": [length - 1] * n},
        variations={"parity": [str(row % 2) for row in range(n)]},
    )  # fmt: skip


def everything(model: Model) -> Node:
    return Node(name="all", parts=tuple(map(str, Graph.of(model).writers)), agrees=WHOLE)


def hypothesis(*nodes: Node, logits: tuple[str, ...] | None = None) -> Hypothesis:
    """A hypothesis whose logits read the first node, when not said otherwise."""
    names = tuple(node.name for node in nodes[:1]) if logits is None else logits
    return Hypothesis(name="tried", description="A claim.", nodes=nodes, logits=names)


# ── identities ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unimportant", ["together", "apart"])
@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_everything_recovers_all_and_nothing_recovers_nothing(
    name: str, unimportant: Unimportant
) -> None:
    on, pairs = masked(name), prompts(6)
    found = scrub(on, pairs, hypothesis(everything(on.model)), unimportant=unimportant)
    assert found.recovered.mean == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.values, found.clean.expand_dims(draw=4), rtol=1e-4, atol=1e-5)
    nothing = scrub(on, pairs, hypothesis(logits=()), unimportant=unimportant)
    assert nothing.recovered.mean == 0
    np.testing.assert_array_equal(nothing.values, nothing.baseline)
    assert float(np.abs(nothing.values - nothing.clean).max()) > 1e-3


def test_the_baseline_is_the_metric_of_another_prompt_with_the_own_answers() -> None:
    on, pairs = masked("gpt2"), prompts(5)
    found = scrub(on, pairs, hypothesis(logits=()), samples=40, claims=False)
    logits = pairs.end_logits(on.model.run(pairs.clean).logits)
    for row in range(5):
        possible = [
            float(METRICS["logit_diff"](logits[[other]], pairs.rows([row])))
            for other in range(5) if other != row
        ]  # fmt: skip
        values = found.values.to_numpy()[:, row]
        nearest = np.abs(values[:, None] - np.array(possible)).min(axis=1)
        assert nearest.max() < 1e-4
        assert len(np.unique(values.round(4))) == 4  # every other prompt, and never itself


# ── two prompts: one can only be swapped for the other, which is a mask ───────────────────────────


def claimed_edges(on: Masked, name: str) -> np.ndarray:
    """A random circuit, in which heads that share something read the same.

    In latent attention heads share a rotary key; in OLMo 2 and OLMoE a norm spans their queries and
    another their keys, and a head is computed with the others' made as its own are.
    """
    graph = on.graph
    kept = np.random.default_rng(0).random(graph.valid.shape) < 0.3
    for layer in range(graph.n_layers):
        if graph.shared_key:
            kept[graph.rows(layer, "k")] = kept[graph.rows(layer, "kr")]
        if name.startswith(("olmo2", "olmoe")):
            for kind in ("q", "k"):
                rows = graph.rows(layer, kind)
                kept[rows] = kept[rows.start]
    return kept & graph.valid


def of_edges(graph: Graph, kept: np.ndarray) -> Hypothesis:
    """The claim that these edges matter, and everything about each."""

    def read(reader: Reader) -> tuple[str, ...]:
        row = kept[graph.readers.index(reader)]
        return tuple(str(writer) for writer, on in zip(graph.writers, row, strict=True) if on)

    nodes: dict[str, Node] = {}
    for writer in graph.writers:
        reads: dict[Kind, tuple[str, ...]] = {}
        if writer.kind == "mlp":
            reads = {"mlp": read(Reader("mlp", writer.layer))}
        elif writer.head is not None:
            group = writer.head * graph.n_kv_heads // graph.n_heads
            shared = graph.n_kv_heads != graph.n_heads
            reads = {
                "q": read(Reader("q", writer.layer, writer.head)),
                "k": read(Reader("k", writer.layer, group, shared)),
                "v": read(Reader("v", writer.layer, group, shared)),
            }
        nodes[str(writer)] = Node(name=str(writer), parts=(str(writer),), agrees=WHOLE, reads=reads)
    logits, reached = read(Reader("logits")), dict[str, Node]()
    ahead = list(logits)
    while ahead:
        node = nodes[ahead.pop()]
        if node.name not in reached:
            reached[node.name] = node
            ahead += [name for names in node.reads.values() for name in names]
    return hypothesis(*reached.values(), logits=logits)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_with_two_prompts_it_is_the_masked_forward(name: str) -> None:
    on, pairs = masked(name), prompts(2)
    kept = claimed_edges(on, name)
    found = scrub(on, pairs, of_edges(on.graph, kept), examples=1, samples=1, claims=False)
    other: Written = written(on.model, on.model.run(pairs.clean.rows([1]), keep=sites(on.model)))
    one = pairs.rows([0])
    logits = on.end_logits(
        one.clean, torch.as_tensor(kept).float()[None], other, one.clean.labels["end"]
    )
    expected = float(METRICS["logit_diff"](logits[0], one))
    scale = float(np.abs(found.clean - found.baseline).max())
    assert abs(float(found.values[0, 0]) - expected) < 1e-5 * max(scale, 1)
    assert abs(expected - float(found.baseline[0, 0])) > 1e-3 * scale


# ── the recursion, one prompt and one whole forward pass at a time ────────────────────────────────


class Naive:
    """The algorithm of the paper, by plain runs and edits of a GPT-2."""

    def __init__(self, model: Model, pairs: Behaviour, tried: Hypothesis, *, apart: bool) -> None:
        self.model, self.pairs, self.tried, self.apart = model, pairs, tried, apart
        self.runs: dict[int, Run] = {}
        self.draws = StandIns(pairs, tried.within, seed=3)  # type: ignore[arg-type]
        layers = range(model.n_layers)
        self.writers = ["input", *(
            name for layer in layers
            for name in (*(f"a{layer}.h{head}" for head in range(model.n_heads)), f"m{layer}")
        )]  # fmt: skip
        self.keep = ["resid_pre.0", "resid_final", *(
            f"{kind}.{layer}" for kind in ("head_out", "mlp_out", "resid_pre", "resid_mid")
            for layer in layers
        )]  # fmt: skip

    def value(self, row: int, draw: int, total: int) -> float:
        self.draw, self.total = draw, total
        last = self.stream("resid_final", self.tried.logits, row, "logits")
        one = self.pairs.rows([row])
        run = self.model.run(one.clean, edits=[replace("resid_final", last)])
        return float(METRICS["logit_diff"](one.end_logits(run.logits), one))

    def stand_in(self, feature: str, row: int, path: str) -> int:
        where = slice(self.draw, self.draw + 1)
        return int(self.draws(feature_of(feature), torch.tensor([row]), path, where, self.total))

    def run(self, row: int) -> Run:
        if row not in self.runs:
            self.runs[row] = self.model.run(self.pairs.clean.rows([row]), keep=self.keep)
        return self.runs[row]

    def written(self, row: int) -> dict[str, Tensor]:
        run = self.run(row)
        found = {"input": run["resid_pre.0"]}
        for layer in range(self.model.n_layers):
            for head in range(self.model.n_heads):
                found[f"a{layer}.h{head}"] = run[f"head_out.{layer}"][:, :, head]
            found[f"m{layer}"] = run[f"mlp_out.{layer}"]
        return found

    def stream(
        self, site: str, names: tuple[str, ...], row: int, path: str,
        others: Mapping[str, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Steps 1 to 3 of the module, with what parts of the same node wrote."""
        rest = self.stand_in("", row, path)
        parts = dict[str, Tensor]()
        for name in names:
            node = self.tried.node(name)
            parts |= self.node(node, self.stand_in(str(node.agrees), row, f"{path} ← {name}"),
                               f"{path} ← {name}")  # fmt: skip
        seen = self.writers[: self.before(site)]
        if self.apart:
            for writer in seen:
                if writer not in parts and writer not in (others or {}):
                    chosen = self.stand_in("", row, f"{path} ← {writer}")
                    parts[writer] = self.written(chosen)[writer]
        return self.replaced(site, rest, parts | dict(others or {}))

    def replaced(self, site: str, row: int, parts: Mapping[str, Tensor]) -> Tensor:
        stream = self.run(row)[site]
        own = self.written(row)
        for writer in self.writers[: self.before(site)]:
            if writer in parts:
                stream = stream + parts[writer] - own[writer]
        return stream

    def before(self, site: str) -> int:
        if site == "resid_final":
            return len(self.writers)
        kind, layer = site.split(".")
        heads = self.model.n_heads
        return 1 + int(layer) * (heads + 1) + (heads if kind == "resid_mid" else 0)

    def node(self, node: Node, row: int, path: str) -> dict[str, Tensor]:
        own, found = self.written(row), dict[str, Tensor]()
        for part in (name for name in self.writers if name in node.parts):
            found[part] = self.part(part, node, row, path, found) if node.reads else own[part]
        return found

    def part(
        self, part: str, node: Node, row: int, path: str, found: Mapping[str, Tensor]
    ) -> Tensor:
        one = self.pairs.clean.rows([row])
        layer, _, head = part[1:].partition(".h")

        def read(kind: Kind, site: str) -> Tensor:
            if kind in node.reads:
                return self.stream(site, node.reads[kind], row, f"{path}<{kind}>", found)
            return self.replaced(site, row, found)

        if part.startswith("m"):
            stream = read("mlp", f"resid_mid.{layer}")
            run = self.model.run(one, edits=[replace(f"resid_mid.{layer}", stream)],
                                 keep=[f"mlp_out.{layer}"])  # fmt: skip
            return run[f"mlp_out.{layer}"]
        edits = [
            replace(f"{kind}.{layer}.{head}", self.model.run(
                one, edits=[replace(f"resid_pre.{layer}", read(kind, f"resid_pre.{layer}"))],
                keep=[f"{kind}.{layer}"],
            )[f"{kind}.{layer}"][:, :, int(head) : int(head) + 1])
            for kind in ("q", "k", "v")
        ]  # fmt: skip
        run = self.model.run(one, edits=edits, keep=[f"head_out.{layer}"])
        return run[f"head_out.{layer}"][:, :, int(head)]


def feature_of(text: str) -> Feature:
    return feature(text) if text else Feature(())


MIXED = hypothesis(
    Node(
        name="late", parts=("a1.h2", "m1"), agrees="token at two",
        reads={"q": ("early",), "k": (), "v": ("early", "middle"), "mlp": ("middle",)},
    ),
    Node(name="middle", parts=("m0",), agrees="column parity", reads={"mlp": ("early",)}),
    Node(name="early", parts=("a0.h1", "a0.h3"), agrees="token at three", reads={"v": ("tokens",)}),
    Node(name="tokens", parts=("input",), agrees="token at two & token at three"),
    logits=("late", "tokens"),
)  # fmt: skip


@pytest.mark.parametrize("unimportant", ["together", "apart"])
def test_the_recursion_is_that_of_whole_forward_passes(unimportant: Unimportant) -> None:
    on, pairs = masked("gpt2"), prompts(12)
    found = scrub(
        on, pairs, MIXED, examples=[1, 4], samples=2, unimportant=unimportant, claims=False, seed=3
    )
    naive = Naive(on.model, pairs, MIXED, apart=unimportant == "apart")
    for sample in range(2):
        for place, row in enumerate((1, 4)):
            expected = naive.value(row, 2 * sample + place, 4)
            assert float(found.values[sample, place]) == pytest.approx(expected, abs=1e-5)
    assert float(np.abs(found.values - found.baseline).min()) > 1e-3


def test_neither_batches_nor_memory_nor_other_claims_change_a_draw() -> None:
    on, pairs = masked("llama-grouped"), prompts(12)
    whole = scrub(on, pairs, MIXED, seed=5, examples=3, samples=2)
    for again in (
        scrub(on, pairs, MIXED, seed=5, examples=3, samples=2, batch_size=4, claims=False),
        scrub(on.model, pairs, MIXED, seed=5, examples=3, samples=2, memory=1, claims=False),
    ):
        np.testing.assert_allclose(again.values, whole.values, atol=1e-5)
        np.testing.assert_allclose(again.baseline, whole.baseline, atol=1e-5)
    other = scrub(on, pairs, MIXED, seed=6, examples=3, samples=2, claims=False)
    assert float(np.abs(other.values - whole.values).max()) > 1e-3


def test_a_model_that_cannot_be_taken_up_in_its_middle_is_run_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on, pairs = masked("gpt2"), prompts(12)
    expected = scrub(on, pairs, MIXED, examples=3, samples=1, claims=False)
    monkeypatch.setattr(recomputing, "probed", lambda model: (False, "it says no"))
    found = scrub(on, pairs, MIXED, examples=3, samples=1, claims=False)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)


def test_a_prompt_stands_in_only_for_those_of_its_length_wherever_it_is_padded() -> None:
    on, short, long = masked("gpt2"), prompts(4, length=5), prompts(4, length=7, seed=1)
    rows = [tokens.clean.row_ids(row) for tokens in (short, long) for row in range(4)]
    found: list[Scrubbed] = []
    for padding in ("left", "right"):
        both = Behaviour.from_tokens(
            rows, rows, answers=[*short.answers, *long.answers], wrong_answers=[9] * 8,
            labels={"two": [2] * 8, "three": [3] * 8, "end": [4] * 4 + [6] * 4},
            variations={"parity": ["0", "1"] * 4}, padding=padding,
        )  # fmt: skip
        found.append(scrub(on, both, MIXED, samples=2, claims=False, seed=1))
        rest = StandIns(both, Feature(()), 0)(Feature(()), torch.arange(8), "path", slice(0, 8), 8)
        assert ((rest < 4) == (torch.arange(8) < 4)).all()
        assert (rest != torch.arange(8)).all()
    np.testing.assert_allclose(found[0].values, found[1].values, atol=1e-5)
