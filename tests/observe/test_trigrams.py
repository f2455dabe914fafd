"""Skip-trigrams against tables multiplied out, and against what the model's own run does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cutaway.model import Model, ablate, open_model
from cutaway.model.tiny import tiny
from cutaway.observe import SkipTrigrams, WeightsError, skip_trigrams, trigrams
from cutaway.observe import weights as w

torch.set_num_threads(1)


def one_layer(family: str = "gpt2", *, mlp: bool = False) -> Model:
    """One layer without biases or positions, and without an MLP unless asked for."""
    small = tiny("gpt2", n_layer=1) if family == "gpt2" else tiny(family, num_hidden_layers=1)
    model = open_model(small)
    part = model.anatomy.layers[0]
    with torch.no_grad():
        for name, weight in model.hf.named_parameters():
            if name.endswith("bias") or "wpe" in name:
                weight.zero_()
        if not mlp:
            part.down.weight.zero_()  # type: ignore[union-attr]
    return model


def tables(model: Model, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both full circuits, multiplied out: (destination, source) and (source, output)."""
    rows = trigrams.seen_tokens(model)
    scores = trigrams.score_scale(model) * rows @ w.qk(model, 0).product[head] @ rows.mT
    logits = rows @ w.ov(model, 0).product[head] @ w.unembedding(model).mT
    return scores, logits - logits.mean(1, keepdim=True)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("entries", [4_000_000, 700])
def test_equals_brute_force(family: str, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or in chunks of a few sources, the tables are those of all vocab³ entries."""
    monkeypatch.setattr(trigrams, "_ENTRIES", entries)
    model = one_layer(family)
    found = skip_trigrams(model, sources=4, each=3)
    for head in range(model.n_heads):
        scores, logits = tables(model, head)
        attention = (scores - scores.exp().mean(1, keepdim=True).log()).sigmoid()
        every = attention.mT[:, :, None] * logits[:, None]  # source, destination, output
        largest = every.flatten(1).max(1)
        order = largest.values.argsort(descending=True)[:4]
        assert found.source.sel(head=head).values.tolist() == order.tolist()
        np.testing.assert_allclose(found.effect.sel(head=head), largest.values[order], rtol=1e-4)
        best = found.entries(head).iloc[0]
        s, d, o = np.unravel_index(int(every.argmax()), every.shape)
        assert (best.source, best.destination, best.output) == (str(s), str(d), str(o))
        assert best.effect == pytest.approx(float(every.max()), rel=1e-4)


def test_the_model_does_what_the_table_says() -> None:
    """In the prompt "source destination": the ratio of attention is that of the scores, and taking
    the source's share away changes the logits by attention · OV over the final norm's scale."""
    model = one_layer()
    found = skip_trigrams(model, sources=1, each=1)
    head = int(found.effect.isel(rank=0).argmax("head"))
    at = {"head": head, "rank": 0}
    source, output = int(found.source.sel(at)), int(found.output.sel(at)[0])
    destination = int(found.destination.sel(at)[0])
    scores, _ = tables(model, head)
    prompt = torch.tensor([[source, destination]])
    run = model.run(prompt, keep=["pattern.0", "resid_final"])
    share = run["pattern.0"][0, head, 1]
    expected = scores[destination, source] - scores[destination, destination]
    torch.testing.assert_close((share[0] / share[1]).log(), expected, rtol=1e-3, atol=1e-3)
    without = model.run(
        prompt,
        edits=ablate("pattern.0", head=head, position=1, key_position=0),
        keep=["resid_final"],
    )
    scale = model.frozen_norm.scale(run["resid_final"])
    fell = model.frozen_norm.centred(run["resid_final"] - without["resid_final"]) / scale
    change = (fell * model.frozen_norm.gain) @ w.unembedding(model, fold=False).mT
    change = change[0, 1] - change[0, 1].mean()
    predicted = float(share[0]) * float(found.logit.sel(at)[0]) / float(scale[0, 1])
    assert float(change[output]) == pytest.approx(predicted, rel=1e-3)


def test_says_whether_an_mlp_is_left_out(tmp_path: Path) -> None:
    plain, deeper = (
        skip_trigrams(one_layer(mlp=each), sources=2, each=2) for each in (False, True)
    )
    assert not plain.mlp_left_out
    assert deeper.mlp_left_out
    assert "MLP is left out" in str(deeper)
    assert "MLP" not in str(plain)
    again = SkipTrigrams.load(deeper.save(tmp_path / "trigrams.nc"))
    assert str(again) == str(deeper)
    assert again.entries(1).equals(deeper.entries(1))


def test_copies_are_counted() -> None:
    """A head whose OV is the identity copies; one whose OV is its negative does not."""
    model = one_layer()
    part, rows = model.anatomy.layers[0], w.embedding(model)
    assert torch.equal(rows, w.unembedding(model, fold=False))  # tied
    width = model.d_head
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(32, width, generator=torch.Generator().manual_seed(0)))
        values = part.v.weight[:, 2 * 32 : 2 * 32 + width]  # type: ignore[index]
        values.copy_(basis.Q)
        part.o_proj.weight[:width] = 100 * basis.Q.mT  # type: ignore[index]
        copying = skip_trigrams(model, sources=96, each=3).copies.values[0]
        part.o_proj.weight[:width] = -100 * basis.Q.mT  # type: ignore[index]
        opposite = skip_trigrams(model, sources=96, each=3).copies.values[0]
    assert copying > 0.3
    assert opposite < 0.02


def test_what_is_refused() -> None:
    with pytest.raises(WeightsError, match="has 2, whose later heads"):
        skip_trigrams(open_model(tiny("gpt2")))
    with pytest.raises(WeightsError, match="each=500"):
        skip_trigrams(one_layer(), each=500)
    with pytest.raises(WeightsError, match="no head 9"):
        skip_trigrams(one_layer(), sources=1).entries(9)
