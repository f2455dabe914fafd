"""Information-flow routes and AtP*, each against another derivation."""

import numpy as np
import pytest
import torch
from tests.circuits.each_family import EVEN, masked
from tests.model.variants import ONE_OF_EACH_KIND

from cutaway.behaviours import Behaviour
from cutaway.circuits import CircuitError, Graph, Masked, discover
from cutaway.model.model import Model
from cutaway.patch import attribution_patching


def parts_of(model: Model, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each writer adds to the stream at each position, (position, d_model), from sites."""
    run = model.run(prompt[None], keep=lambda site: site.kind in {
        "resid_pre", "attn_out", "head_out", "mlp_out"})  # fmt: skip
    found = {"input": run["resid_pre.0"][0]}
    for layer in range(model.n_layers):
        part = model.anatomy.layers[layer]
        heads = run[f"head_out.{layer}"][0]
        for head in range(model.n_heads):
            added = heads[:, head]
            if part.attn_post_norm is not None:  # an RMS norm: linear, at its scale
                assert part.o_proj.bias is None
                total = heads.sum(dim=1)
                with torch.no_grad():
                    added = added * part.attn_post_norm(total) / total
            found[f"a{layer}.h{head}"] = added
        found[f"m{layer}"] = run[f"mlp_out.{layer}"][0]
    return found


def by_loops(on: Masked, prompt: torch.Tensor, tau: float) -> dict[str, float]:
    """The algorithm of the module, token by token and edge by edge, with a list of what is left."""
    model, graph, end = on.model, on.graph, len(prompt) - 1
    added = parts_of(model, prompt)
    run = model.run(prompt[None], keep=lambda site: site.kind in {
        "resid_pre", "resid_mid", "resid_final", "pattern"})  # fmt: skip
    shares: dict[tuple[str, int], dict[str, float]] = {}
    left, seen = [("logits", end)], set[tuple[str, int]]()
    while left:
        name, at = left.pop()
        if (name, at) in seen:
            continue
        seen.add((name, at))
        (row,) = (i for i, reader in enumerate(graph.readers) if str(reader) == name)
        reader = graph.readers[row]
        middle = reader.kind == "mlp" and not graph.parallel
        site = "resid_final" if reader.layer is None else (
            f"resid_{'mid' if middle else 'pre'}.{reader.layer}")  # fmt: skip
        x = run[site][0, at]
        near = {
            str(writer): max(0.0, float(x.abs().sum() - (x - added[str(writer)][at]).abs().sum()))
            for writer in graph.writers[: graph.reach[row]]
        }
        share = {writer: value / sum(near.values()) for writer, value in near.items()}
        shares[name, at] = share = {w: s if s > tau else 0.0 for w, s in share.items()}
        for writer, one in share.items():
            if one and writer.startswith("m"):
                left.append((writer, at))
            if one and writer.startswith("a"):
                layer, head = (int(number) for number in writer[1:].split(".h"))
                group = head * graph.n_kv_heads // graph.n_heads
                end_of = "kv" if graph.n_kv_heads != graph.n_heads else "h"
                left.append((f"{writer}<q>", at))
                for source in range(at + 1):
                    if one * float(run[f"pattern.{layer}"][0, head, at, source]) > tau:
                        left += [(f"a{layer}.{end_of}{group}<{kind}>", source) for kind in "kv"]
    scores: dict[str, float] = {}
    for edge in graph.edges:
        found = [
            share[str(edge.writer)]
            for (name, _), share in shares.items()
            if name == str(edge.reader)
        ]
        scores[str(edge)] = float(np.mean(found)) if found else 0.0
    return scores


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "gptj", "gemma2"])
@pytest.mark.parametrize("tau", [0.0, 0.08])
def test_information_flow_is_the_loop_over_tokens(name: str, tau: float, pairs: Behaviour) -> None:
    on = masked(name)
    found = discover(on, pairs, "information-flow", tau=tau, batch_size=3)
    for example in (0, 2):
        prompt = pairs.clean.ids[example][pairs.clean.mask[example]]
        expected = by_loops(on, prompt, tau)
        values = found.values.isel(example=example)
        np.testing.assert_allclose(values, list(expected.values()), rtol=1e-3, atol=1e-5)
        assert (values > 0).mean() > 0.1
    if tau:
        assert float((found.mean == 0).mean()) > 0.1


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_shares_of_what_is_read_add_up_to_one(name: str, pairs: Behaviour) -> None:
    on = masked(name)
    matrix = discover(on, pairs, "information-flow").matrix
    np.testing.assert_allclose(np.nansum(matrix, axis=1)[-1], 1, rtol=1e-4)
    sums = np.nansum(matrix, axis=1)
    assert ((np.abs(sums - 1) < 1e-4) | (sums < 1)).all()
    assert (np.nan_to_num(matrix) >= 0).all()
    # without contrast: what the corrupt prompts are does not matter
    other = Behaviour.from_tokens(
        [[3, 4, 5, 6]], [[9, 9, 9, 9]], answers=[5], wrong_answers=[8],
    )  # fmt: skip
    alone = discover(on, EVEN.rows([0]), "information-flow")
    np.testing.assert_allclose(discover(on, other, "information-flow").mean, alone.mean, atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped", "gemma2"])
@pytest.mark.parametrize("ablation", ["counterfactual", "mean"])
def test_atp_star_is_the_sweep_s_at_every_node(name: str, ablation: str, pairs: Behaviour) -> None:
    """The numbers of `attribution_patching`; their signs are those of EAP's sums over edges."""
    on = masked(name)
    mode = "noise" if ablation == "counterfactual" else "mean"
    found = discover(on, pairs, "atp-star", ablation=ablation)
    heads = attribution_patching(
        on.model, pairs, "head_out", mode=mode, method="atp*", verify=0
    ).effects
    lost = -heads.effect.mean("example").to_numpy()
    for layer in range(on.model.n_layers):
        for head in range(on.model.n_heads):
            assert found[f"a{layer}.h{head}->logits"] == pytest.approx(lost[layer, head], rel=1e-4)
    mlps = attribution_patching(
        on.model, pairs, "mlp_out", by="layer", mode=mode, method="atp*", verify=0
    ).effects
    assert found["m0->m1"] == pytest.approx(-float(mlps.effect.mean("example")[0]), rel=1e-4)
    assert found["m0->m1"] == found["m0->logits"]
    plain = discover(on, pairs, "eap", ablation=ablation)
    names, unit = on.graph.units("nodes")
    valid = unit[on.graph.valid]
    for column, node in enumerate(names):
        sums = plain.values.to_numpy()[valid == column].sum(axis=0)
        stars = found.values.sel(edge=f"{node}->logits").to_numpy()
        assert (stars * sums >= -1e-8).all(), node


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(CircuitError, match="tau is the least share, from 0 to below 1; found 1"):
        discover(masked("gpt2"), EVEN, "information-flow", tau=1.0)
    with pytest.raises(CircuitError, match="'atp-star' serves the ablations .* 'mean-by-position'"):
        discover(masked("gpt2"), EVEN, "atp-star", ablation="mean-by-position")
    for method in ("information-flow", "atp-star"):
        graph = Graph.of(masked("gpt2").model, neurons={0: [1]})
        with pytest.raises(CircuitError, match="scores whole heads and MLPs at all positions"):
            discover(masked("gpt2").model, EVEN, method, graph=graph)
    with pytest.raises(CircuitError, match="compares with the clean run, where its gradient is"):
        discover(masked("gpt2"), EVEN, "atp-star", metric="kl")
