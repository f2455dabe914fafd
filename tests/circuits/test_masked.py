"""The masked forward against the plain runs, path patching, and a forward hooked by hand."""

import numpy as np
import pytest
import torch
from tests.circuits.by_hand import by_hand, error, logits, some_edges, value
from tests.circuits.each_family import EVEN, masked
from tests.model.variants import ONE_OF_EACH_KIND, VARIANTS

from cutaway.behaviours import METRICS, Behaviour
from cutaway.circuits import CircuitError
from cutaway.circuits.masked import Masked, Resumed
from cutaway.circuits.retained import retained
from cutaway.circuits.written import Replacement, Written, sites, written
from cutaway.model import Model, Site, open_model
from cutaway.model.resume import run_base
from cutaway.model.tiny import tiny
from cutaway.patch.sources import drawn


@pytest.mark.parametrize("name", list(VARIANTS))
def test_all_on_is_the_clean_run_and_all_off_the_replacement(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    valid = on.graph.valid
    clean, corrupt = (
        pairs.end_logits(on.model.run(side).logits) for side in (pairs.clean, pairs.corrupt)
    )
    # Entries that are no edges are left random: they must not count.
    noise = np.random.default_rng(0).random((2, *valid.shape))
    kept = np.where(valid, np.array([1, 0])[:, None, None], noise)
    found = logits(on, pairs, kept)
    assert error(found[0], clean) < 1e-5
    assert error(found[1], corrupt) < 1e-5
    assert error(clean, corrupt) > 1e-2


@pytest.mark.parametrize("name", list(VARIANTS))
def test_one_edge_off_is_path_patching(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    edges = some_edges(on)
    kept = np.stack([~on.graph.mask([edge]) for edge in edges])
    off = logits(on, pairs, kept)
    # Scale by the whole effect, since a single edge's may be nearly nothing.
    ends = logits(on, pairs, np.stack([on.graph.valid, ~on.graph.valid]))
    whole = np.abs(value(pairs, ends[0]) - value(pairs, ends[1])).max()
    for row, edge in enumerate(edges):
        worst = np.abs(value(pairs, off[row]) - by_hand(on, pairs, edge)).max()
        assert worst < 1e-5 * max(whole, 1), (str(edge), worst, whole)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_with_the_prompts_exchanged_it_is_path_patching_the_other_way(
    name: str, pairs: Behaviour
) -> None:
    on = masked(name)
    edges = some_edges(on)
    clean = written(on.model, on.model.run(pairs.clean, keep=sites(on.model)))
    kept = torch.as_tensor(np.stack([~on.graph.mask([edge]) for edge in edges])).float()
    found = on.end_logits(pairs.corrupt, kept, clean, pairs.clean.labels["end"])
    corrupt = value(pairs, pairs.end_logits(on.model.run(pairs.corrupt).logits))
    changed = 0.0
    for row, edge in enumerate(edges):
        expected = by_hand(on, pairs, edge, denoise=True)
        np.testing.assert_allclose(value(pairs, found[row]), expected, rtol=1e-4, atol=1e-4)
        changed = max(changed, float(np.abs(expected - corrupt).max()))
    assert changed > 1e-2


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_an_edge_on_alone_carries_what_is_still_clean(name: str, pairs: Behaviour) -> None:
    """Only the input is clean when nothing else is on; other writers write the replacement."""
    on = masked(name)
    value_input = on.graph.readers[on.graph.rows(0, "v").start]
    edges = [f"input->{value_input}", "a0.h0->logits"]
    kept = [on.graph.mask(edges[:1]), on.graph.mask(edges[1:]), on.graph.mask(edges)]
    corrupt = pairs.end_logits(on.model.run(pairs.corrupt).logits)
    found = logits(on, pairs, np.stack(kept))
    assert error(found[0], corrupt) < 1e-5
    assert error(found[1], corrupt) < 1e-5
    assert error(found[2], corrupt) > 1e-3


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_masks_pieces_and_padding_do_not_matter(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    generator = np.random.default_rng(1)
    kept = generator.random((3, *on.graph.valid.shape))
    found = logits(on, pairs, kept)
    small = Masked(on.model, memory=2 * on.bytes_per_row(pairs.clean.ids.shape[1]))
    assert error(logits(small, pairs, kept), found) < 1e-5
    for row in (0, 4):
        length = int(pairs.clean.lengths[row])
        alone = Behaviour.from_tokens(
            [pairs.clean.row_ids(row)], [pairs.corrupt.row_ids(row)],
            answers=[pairs.answers[row]], wrong_answers=[pairs.wrong_answers[row]],
            labels={"end": [length - 1]},
        )  # fmt: skip
        assert error(logits(on, alone, kept)[:, 0], found[:, row]) < 1e-5


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_resumed_pass_is_the_whole_one(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    instead = Replacement(on.model, pairs)(slice(0, len(pairs)))
    later = np.array([reader.layer != 0 for reader in on.graph.readers])
    kept = np.where(later[:, None], np.random.default_rng(2).random(on.graph.valid.shape), 1.0)
    expected = logits(on, pairs, np.stack([kept, on.graph.valid]), instead)
    streams = [Site("resid_pre", layer) for layer in range(1, on.model.n_layers)]
    base = run_base(on.model, pairs.clean, [*sites(on.model), *streams])
    for start in (0, 3):
        at = Resumed(
            base=base, written=written(on.model, base.run), rows=torch.arange(5), layer=1,
            start=start,
        )  # fmt: skip
        mask = torch.as_tensor(np.stack([kept, on.graph.valid])).float()
        found = on.end_logits(pairs.clean, mask, instead, pairs.clean.labels["end"], at)
        assert error(found, expected) < 1e-5
    assert error(expected[0], expected[1]) > 1e-3


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_what_is_kept_for_gradients_is_known_and_bounded(name: str, pairs: Behaviour) -> None:
    """Pieces keep nothing but their own inputs until it is their turn, and give the same slopes."""
    on = masked(name)
    instead = Replacement(on.model, pairs)(slice(0, 5))
    there = [*on.model.hf.parameters(), *instead.tensors()]
    mask = torch.rand(2, *on.graph.valid.shape, generator=torch.Generator().manual_seed(4))
    kept = mask.requires_grad_()

    def run(with_memory: Masked) -> torch.Tensor:
        return with_memory.end_logits(pairs.clean, kept, instead, pairs.clean.labels["end"])

    found = run(Masked(on.model, memory=2**30))
    rows = 2 * len(pairs)
    small = Masked(on.model, memory=1)
    assert error(run(small).detach(), found.detach()) < 1e-5  # measures what one row keeps
    (each,) = small._retained.values()  # pyright: ignore[reportPrivateUsage]
    whole = retained(lambda: run(Masked(on.model, memory=2**30)), there)
    assert 0.8 < whole / (rows * each) < 1.2
    assert retained(lambda: run(small), there) < each
    slopes = [torch.autograd.grad(run(one).square().sum(), [kept])[0] for one in (on, small)]
    assert error(slopes[1], slopes[0]) < 1e-5


@pytest.mark.parametrize(("name", "rtol"), [("gpt2", 1e-5), ("olmo2", 1e-2)])
def test_a_slope_along_the_mask_is_the_difference(name: str, rtol: float) -> None:
    """Autograd through the pass against a small step of one edge, in double precision.

    The norms of OLMo 2 are computed in float32 all the same.
    """
    with pytest.warns(UserWarning, match="opened without verification"):
        on = Masked(open_model(tiny(name, dtype=torch.float64), verify=False))
    pairs = EVEN
    instead = Replacement(on.model, pairs)(slice(0, 3))
    kept = torch.as_tensor(np.random.default_rng(3).random((1, *on.graph.valid.shape)))
    kept.requires_grad_()
    end = pairs.clean.labels["end"]
    total = METRICS["logit_diff"](on.end_logits(pairs.clean, kept, instead, end)[0], pairs).sum()
    (slope,) = torch.autograd.grad(total, [kept])
    assert float(slope[0][~torch.as_tensor(on.graph.valid)].abs().max()) == 0
    for edge in some_edges(on):
        at = on.graph.at(edge)
        ends: list[float] = []
        for step in (1e-3, -1e-3):
            moved = kept.detach().clone()
            moved[0][at] += step
            found = on.end_logits(pairs.clean, moved, instead, end)[0]
            ends.append(float(METRICS["logit_diff"](found, pairs).double().sum()))
        np.testing.assert_allclose(float(slope[0][at]), (ends[0] - ends[1]) / 2e-3, rtol=rtol,
                                   atol=rtol / 10)  # fmt: skip


def test_a_head_s_edge_starts_before_a_post_norm(pairs: Behaviour) -> None:
    """With half of the heads' edges off, the reader sees the post-norm of the mixture of heads."""
    on = masked("gemma2")
    model, part = on.model, on.model.anatomy.layers[0]
    kept = on.graph.valid.copy()
    for head in (0, 2):
        kept[on.graph.at(f"a0.h{head}->logits")] = False
    run = model.run(pairs.clean, keep=["z.0", "attn_out.0", "resid_final"])
    other = model.run(pairs.corrupt, keep=["z.0"])
    z = run["z.0"].clone()
    z[:, :, [0, 2]] = other["z.0"][:, :, [0, 2]]
    assert part.attn_post_norm is not None
    with torch.no_grad():
        mixed = part.attn_post_norm(part.o_proj(z.flatten(2)))
        stream = run["resid_final"] - run["attn_out.0"] + mixed
        expected = model.unembed(model.anatomy.final_norm(stream))
    found = logits(on, pairs, kept[None])
    assert error(found[0], pairs.end_logits(expected)) < 1e-5
    assert error(found[0], pairs.end_logits(run.logits)) > 1e-3


@pytest.mark.parametrize("ablation", ["mean", "mean-by-position", "zero", "resample"])
def test_ablations(ablation: str) -> None:
    """What takes a writer's place, worked out from plain runs; all off, readers see only that."""
    on = masked("llama-grouped")
    model = on.model
    instead = Replacement(model, EVEN, ablation, seed=4, batch_size=2)(slice(0, 3))
    plain = written(model, model.run(EVEN.corrupt, keep=sites(model)))
    order = drawn(EVEN, 4)
    expected = {
        "mean": lambda x: x.mean(dim=(0, 1), keepdim=True),
        "mean-by-position": lambda x: x.mean(dim=0, keepdim=True),
        "zero": lambda x: torch.zeros_like(x[:1, :1]),
        "resample": lambda x: x[order],
    }[ablation]
    for found, x in zip(instead.tensors(), plain.tensors(), strict=True):
        torch.testing.assert_close(found, expected(x), rtol=1e-5, atol=1e-6)
    found = logits(on, EVEN, (~on.graph.valid)[None], instead)
    stream = sum_of(model, instead)
    with torch.no_grad():
        by_parts = model.unembed(model.anatomy.final_norm(stream))
    by_parts = by_parts.expand(3, 4, -1)
    torch.testing.assert_close(found[0], EVEN.end_logits(by_parts), rtol=1e-5, atol=1e-5)


def sum_of(model: Model, instead: Written) -> torch.Tensor:
    """All that the writers write (the tiny llama has no biases)."""
    total = instead.input
    for layer, (z, mlp) in enumerate(zip(instead.z, instead.mlp, strict=True)):
        with torch.no_grad():
            total = total + model.anatomy.layers[layer].o_proj(z.flatten(2)) + mlp
    return total


def test_bad_input_is_refused_in_a_sentence(pairs: Behaviour) -> None:
    on = masked("gpt2")
    with pytest.raises(CircuitError, match=r"shape \(mask, 27 readers, 11 writers\); found"):
        logits(on, pairs, np.ones((1, 3, 3)))
    with pytest.raises(CircuitError, match="no ablation 'noise'; choose one of counterfactual"):
        Replacement(on.model, pairs, "noise")
    with pytest.raises(CircuitError, match="different lengths, so their positions do not line up"):
        Replacement(on.model, pairs, "resample")
    with pytest.raises(CircuitError, match="draws other prompts, and this behaviour has a single"):
        Replacement(on.model, pairs.rows([0]), "resample")


def test_a_model_that_reads_otherwise_is_refused() -> None:
    model = open_model(tiny("llama"))
    part = model.anatomy.layers[1]
    part.attn.register_forward_pre_hook(
        lambda _m, args, kwargs: (args, kwargs | {"hidden_states": 2 * kwargs["hidden_states"]}),
        with_kwargs=True, prepend=True,
    )  # fmt: skip
    with pytest.raises(CircuitError, match=r"what 'attn_in\.1' holds could not be made again"):
        Masked(model)


def test_projections_that_are_not_plain_are_called_once_per_reader(pairs: Behaviour) -> None:
    """A wrapped projection gives what the bare one gives."""
    expected = logits(masked("llama-grouped"), pairs, half := some_half(masked("llama-grouped")))
    model = open_model(tiny("llama"))
    for layer in model.anatomy.layers:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            inner = layer.attn.get_submodule(name)
            inner.__class__ = type("Adapted", (type(inner),), {})
    assert error(logits(Masked(model), pairs, half), expected) < 1e-5


def some_half(on: Masked) -> np.ndarray:
    return np.random.default_rng(5).random((2, *on.graph.valid.shape)) < 0.5
