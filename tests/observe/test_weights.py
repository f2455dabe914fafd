"""Weight-space circuits against brute-force products and against what a run of the model holds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.errors import CutawayError
from cutaway.model import Model, Site
from cutaway.model.weights import frozen_norm_before, output, projection
from cutaway.observe import Composition, Copying, Factored, WeightsError
from cutaway.observe import weights as w

FAMILIES = ("gpt2", "llama", "gpt_neox", "gptj", "bloom", "cohere", "gemma2", "granite", "qwen3")
TOKENS = torch.arange(3, 15).reshape(2, 6)


def without_biases(model: Model) -> Model:
    """Projections' biases are no part of a circuit."""
    with torch.no_grad():
        for layer in model.anatomy.layers:
            for module in (layer.q, layer.k, layer.v):
                bias = getattr(module, "bias", None)
                if bias is not None:
                    bias.zero_()
    return model


def divided(model: Model, layer: int, stream: torch.Tensor) -> torch.Tensor:
    """The stream over its norm's scale, less what the norm adds."""
    norm = frozen_norm_before(model, Site("attn_in", layer))
    assert norm is not None
    return stream / norm.scale(stream)


@pytest.mark.parametrize("family", FAMILIES)
def test_ov_circuits_give_what_the_heads_write(opened: Callable[[str], Model], family: str) -> None:
    model, layer = without_biases(opened(family)), 1
    kinds = ("resid_pre", "pattern", "head_out")
    run = model.run(TOKENS, keep=[Site(kind, layer) for kind in kinds])
    norm = frozen_norm_before(model, Site("attn_in", layer))
    assert norm is not None
    constant = torch.einsum("hed,d->he", w.reading(model, Site("v", layer), fold=False), norm.bias)
    seen = divided(model, layer, run[Site("resid_pre", layer)])
    circuit = w.ov(model, layer)
    written = torch.einsum("bpd,hde->bphe", seen, circuit.product)
    shared = constant.repeat_interleave(model.n_heads // len(constant), 0)
    written = written + torch.einsum("he,hed->hd", shared, circuit.right)
    expected = torch.einsum("bhqk,bkhe->bqhe", run[Site("pattern", layer)], written)
    torch.testing.assert_close(run[Site("head_out", layer)], expected, rtol=1e-4, atol=1e-5)


def test_qk_circuits_give_the_scores(opened: Callable[[str], Model]) -> None:
    model, layer = without_biases(opened("gpt2")), 1
    norm = frozen_norm_before(model, Site("attn_in", layer))
    assert norm is not None
    with torch.no_grad():
        model.anatomy.layers[layer].block.ln_1.bias.zero_()  # type: ignore[union-attr]
    run = model.run(TOKENS, keep=[Site("resid_pre", layer), Site("scores", layer)])
    seen = divided(model, layer, run[Site("resid_pre", layer)])
    scores = torch.einsum("bqd,hde,bke->bhqk", seen, w.qk(model, layer).product, seen)
    allowed = torch.ones(6, 6).tril().bool()
    found = run[Site("scores", layer)][..., allowed]
    torch.testing.assert_close(
        found, scores[..., allowed] / model.d_head**0.5, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_mlps_and_logits_read(opened: Callable[[str], Model], family: str) -> None:
    model, layer = opened(family), 0
    middle = "resid_pre" if model.parallel else "resid_mid"
    sites = [Site(middle, layer), Site("mlp_pre", layer), Site("resid_final"), Site("final_norm")]
    run = model.run(TOKENS, keep=sites)
    norm = frozen_norm_before(model, Site("mlp_in", layer))
    assert norm is not None
    rows = projection(model, Site("mlp_pre", layer))
    stream = run[Site(middle, layer)]
    expected = (stream / norm.scale(stream)) @ w.reading(model, Site("mlp_pre", layer)).mT
    up = model.anatomy.layers[layer].up
    bias = getattr(up, "bias", None)
    constant = rows @ norm.bias + (0 if bias is None else bias[: len(rows)])
    torch.testing.assert_close(run[Site("mlp_pre", layer)], expected + constant, rtol=1e-4,
                               atol=1e-4)  # fmt: skip
    last = run[Site("resid_final")]
    at = model.frozen_norm
    logits = (last / at.scale(last)) @ w.unembedding(model).mT
    plain = w.unembedding(model, fold=False)
    assert torch.allclose(logits + plain @ at.bias, run[Site("final_norm")] @ plain.mT, atol=1e-3)


def test_factored_equals_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    a = Factored(
        torch.randn(3, 12, 4, generator=generator), torch.randn(3, 4, 12, generator=generator)
    )
    b = Factored(
        torch.randn(3, 12, 2, generator=generator), torch.randn(3, 2, 9, generator=generator)
    )
    product = a.left @ a.right
    torch.testing.assert_close(a.norm, product.norm(dim=(-2, -1)))
    torch.testing.assert_close(a.trace, product.diagonal(dim1=-2, dim2=-1).sum(-1))
    torch.testing.assert_close((a @ b).product, product @ b.product)
    assert (a @ b).rank == 2
    torch.testing.assert_close(a.transposed.product, product.mT)
    u, s, v = a.svd()
    torch.testing.assert_close(u * s[:, None] @ v.mT, product)
    torch.testing.assert_close(s, torch.linalg.svdvals(product)[:, :4])
    largest = torch.linalg.eigvals(product).abs().sort(descending=True).values[:, :4]
    torch.testing.assert_close(a.eigenvalues.abs(), largest, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_copying_is_the_share_of_positive_eigenvalues(
    opened: Callable[[str], Model], family: str, tmp_path: Path
) -> None:
    model = opened(family)
    found = w.copying(model, draws=5)
    for layer in range(model.n_layers):
        whole = w.embedding(model) @ w.ov(model, layer).product @ w.unembedding(model).mT
        values = torch.linalg.eigvals(whole.double())
        expected = values.real.sum(-1) / values.abs().sum(-1)
        np.testing.assert_allclose(found.values[layer], expected, atol=1e-3)
    assert 0 < found.chance < 1
    again = Copying.load(found.save(tmp_path / "copying.nc"))
    np.testing.assert_array_equal(again.values, found.values)
    assert again.chance == found.chance


@pytest.mark.parametrize("through", ["q", "k", "v"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj"])
def test_composition_equals_brute_force(
    opened: Callable[[str], Model], family: str, through: w.Through, tmp_path: Path
) -> None:
    model = opened(family)
    found = w.composition(model, through)
    writer = w.ov(model, 0, fold=False).product
    reader = (w.ov(model, 1) if through == "v" else w.qk(model, 1)).product
    reader = reader.mT if through == "k" else reader
    for one in range(model.n_heads):
        for other in range(model.n_heads):
            expected = (writer[one] @ reader[other]).norm() / (
                writer[one].norm() * reader[other].norm()
            )
            np.testing.assert_allclose(found.values[0, one, 1, other], expected, rtol=1e-4)
    assert np.isnan(found.values[1]).all()
    assert found.bound > found.chance == pytest.approx(model.d_model**-0.5)
    again = Composition.load(found.save(tmp_path / "composition.nc"))
    np.testing.assert_array_equal(again.values, found.values)


def test_virtual_weights_are_one_step_along_the_stream(opened: Callable[[str], Model]) -> None:
    model = opened("gpt2")
    between = w.virtual(model, "head_out.0.1", "q.1.2")
    expected = output(model, 0)[1] @ w.reading(model, Site("q", 1))[2].mT
    torch.testing.assert_close(between.product, expected)
    assert w.virtual(model, "mlp_post.0", "mlp_pre.1").shape == (48, 48)
    assert w.virtual(model, "mlp_post.0.3", "mlp_pre.1.5").shape == (1, 1)
    assert w.virtual(model, "embed", "logits").shape == (model.d_vocab, model.d_vocab)
    assert w.virtual(model, "head_out.0.1", "mlp_pre.0").shape[1] == 48


@pytest.mark.parametrize(
    ("writer", "reader", "says"),
    [
        ("head_out.1.0", "q.0.0", "stands before"),
        ("head_out.0.0", "q.0.0", "stands before"),
        ("q.0.0", "q.1.0", "found 'q.0.0'"),
        ("head_out.0.9", "q.1.0", "9"),
    ],
)
def test_what_is_refused(
    opened: Callable[[str], Model], writer: str, reader: str, says: str
) -> None:
    with pytest.raises(CutawayError, match=says):
        w.virtual(opened("gpt2"), writer, reader)


def test_latent_attention_and_odd_shapes_are_refused(opened: Callable[[str], Model]) -> None:
    with pytest.raises(WeightsError, match="latent attention"):
        w.ov(opened("deepseek_v3"), 0)
    with pytest.raises(WeightsError, match="square"):
        _ = Factored(torch.ones(3, 2), torch.ones(2, 4)).trace
    with pytest.raises(WeightsError, match="'x'"):
        w.composition(opened("gpt2"), "x")  # type: ignore[arg-type]
