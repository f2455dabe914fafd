"""Opening from a directory or an object: what is refused in one sentence, what is left alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import logging

from cutaway.errors import CutawayError, InputError, ModelError
from cutaway.model import Family, Model, ablate, declare, open_model
from cutaway.model.family import FAMILIES
from cutaway.model.tiny import tiny
from cutaway.model.tokens import Tokens, pad

Open = Callable[[str], Model]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny("llama").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_directory_opens_as_the_model_that_was_saved(saved: Path, ids: torch.Tensor) -> None:
    model = open_model(saved)
    assert torch.equal(model.run(ids).logits, open_model(tiny("llama")).run(ids).logits)
    assert model.verification is not None
    assert model.tokenizer is None
    shutil.copytree(saved, saved.parent / "elsewhere")
    assert open_model(saved.parent / "elsewhere").fingerprint == model.fingerprint
    assert open_model(tiny("llama", seed=1)).fingerprint != model.fingerprint


def test_any_single_weight_is_in_the_fingerprint() -> None:
    plain = open_model(tiny("gpt2")).fingerprint
    changed = tiny("gpt2")
    with torch.no_grad():
        changed.transformer.h[1].attn.c_attn.bias[95] += 1
    assert open_model(changed).fingerprint != plain


def test_options_take_effect(saved: Path, ids: torch.Tensor) -> None:
    half = open_model(saved, dtype="bfloat16", attention="eager", device="cpu")
    assert half.dtype == torch.bfloat16
    assert half.hf.config._attn_implementation == "eager"
    assert half.run(ids, keep=["pattern"]).logits.dtype == torch.bfloat16


def test_weights_that_load_at_once_show_no_bar(
    saved: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.enable_progress_bar()
    open_model(saved)
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()
    monkeypatch.setattr("cutaway.model.load._SMALL", 1)
    open_model(saved)
    assert "Loading weights" in capfd.readouterr().err


def test_opening_without_verification_is_loud(saved: Path) -> None:
    with pytest.warns(UserWarning, match="opened without verification"):
        assert open_model(saved, verify=False).verification is None


def _strip(path: Path, config: dict[str, Any] | None = None) -> None:
    for file in path.glob("*.safetensors"):
        file.unlink()
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))


def _with_code(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "evil.py").write_text("raise SystemExit('ran')")


def _cut_short(path: Path) -> None:
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def _configured(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def _pickled(path: Path) -> None:
    _strip(path)
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


BAD: list[tuple[Callable[[Path], object], dict[str, Any], str]] = [
    (lambda path: (path / "config.json").unlink(), {}, "has no config.json"),
    (_strip, {}, "a config.json but no weights"),
    (_pickled, {}, "as a pickle, which can run code when loaded; convert"),
    (_with_code, {}, "brings its own code, which is not run unless asked for"),
    (lambda path: (path / "config.json").write_text("{"), {}, "is not valid JSON"),
    (lambda path: _strip(path, {"model_type": "nonsense"}), {}, "no weights"),
    (lambda path: None, {"device": "cuda:9"}, "There is no device 'cuda:9' here; there is cpu"),
    (lambda path: None, {"device": "warp"}, "There is no device 'warp'"),
    (lambda path: None, {"dtype": "int8"}, "'int8' is not a floating-point type"),
    (lambda path: None, {"attention": "nonsense"}, "could not be opened"),
    (lambda path: None, {"nonsense": 1}, "could not be opened: .*'nonsense'"),
    (_cut_short, {}, "a safetensors file is damaged or incomplete"),
    (lambda path: _configured(path, num_hidden_layers=3), {}, "its weights lack 'model.layers.2"),
    (lambda path: _configured(path, vocab_size=90), {}, "do not have the shapes that its config"),
]


@pytest.mark.parametrize(("spoil", "options", "message"), BAD)
def test_bad_directories_and_options_are_refused(
    saved: Path, spoil: Callable[[Path], object], options: dict[str, Any], message: str
) -> None:
    spoil(saved)
    with pytest.raises(ModelError, match=message) as refusal:
        open_model(saved, **options)
    assert "\n" not in str(refusal.value)


def test_unknown_names_and_offline_hubs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="no such local directory, and the hub does not have it"):
        open_model("nobody/no-such-model", cache_dir=str(tmp_path))
    with pytest.raises(ModelError, match="is not a model's directory"):
        open_model("./nowhere")
    with pytest.raises(ModelError, match="int is not a model"):
        open_model(3)
    with pytest.raises(ModelError, match="has no unembedding"):
        open_model(tiny("gpt2").transformer)


def test_a_loaded_model_is_left_as_it_is() -> None:
    with pytest.raises(ModelError, match="so device, dtype cannot be given"):
        open_model(tiny("gpt2"), device="cpu", dtype="float16")


def test_families_that_do_not_add_up_say_why() -> None:
    with pytest.raises(ModelError, match="do_layer_norm_before=False"):
        open_model(tiny("opt", do_layer_norm_before=False))
    with pytest.raises(ModelError, match="after the layer norm"):
        open_model(tiny("bloom", apply_residual_connection_post_layernorm=True))


class _Halved(torch.nn.Module):
    """An attention output that is not what joins the stream."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out, *rest = self.inner(*args, **kwargs)
        return (0.5 * out, *rest)


def test_a_model_that_is_not_what_it_seems_is_refused_with_site_and_numbers() -> None:
    hf = tiny("gpt2")
    hf.transformer.h[1].attn = _Halved(hf.transformer.h[1].attn)
    with pytest.raises(ModelError, match="declare the family"):
        open_model(hf)
    declare(Family(model_type="gpt2", packing="concat", attn="attn.inner"))
    hf.transformer.h[0].attn = _Halved(hf.transformer.h[0].attn)
    try:
        message = (
            r"refused: at resid_mid.\d, resid_pre \+ attn_out = resid_mid fails with relative "
            r"error [\d.e-]+ by norm and [\d.e-]+ by magnitude"
        )
        with pytest.raises(ModelError, match=message):
            open_model(hf)
    finally:
        declare(Family(model_type="gpt2", packing="concat"))


def test_a_wrong_packing_is_caught_and_a_right_one_is_found() -> None:
    before = FAMILIES.pop("gpt2")
    try:
        assert open_model(tiny("gpt2")).anatomy.packing == "concat"
        declare(Family(model_type="gpt2", packing="grouped"))
        with pytest.raises(ModelError, match="refused: at"):
            open_model(tiny("gpt2"))
    finally:
        declare(before)
    grouped = FAMILIES.pop("gpt_neox")
    try:
        assert open_model(tiny("gpt_neox")).anatomy.packing == "grouped"
    finally:
        declare(grouped)


@pytest.mark.usefixtures("unchecked_shapes")
def test_inputs_that_cannot_run_are_refused(opened: Open) -> None:
    model = opened("gpt2")
    bad = [
        (
            torch.zeros(1, 65, dtype=torch.long),
            "65 tokens, more than the 64 of GPT2LMHeadModel's context",
        ),
        (torch.tensor([[3, 96]]), "Token id 96 is outside"),
        (torch.tensor([[-1]]), "Token id -1 is outside"),
        ("text", "opened without a tokenizer"),
    ]
    for given, message in bad:
        with pytest.raises(InputError, match=message):
            model.run(given)
    with pytest.raises(InputError, match="at least one token"):
        Tokens(ids=torch.zeros(0, 3), mask=torch.zeros(0, 3).bool())
    with pytest.raises(InputError, match="Row 1 of the batch has no real token"):
        Tokens(ids=torch.ones(2, 2).long(), mask=torch.tensor([[True, True], [False, False]]))
    with pytest.raises(InputError, match="at least one token per row"):
        pad([[1], []], pad_id=0)
    with pytest.raises(InputError, match="must be 'left' or 'right'"):
        pad([[1]], pad_id=0, padding="middle")  # type: ignore[arg-type]


def test_running_out_of_memory_says_what_would_fit(
    opened: Open, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened("llama-grouped")

    def full(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model.hf, "forward", full)
    with pytest.raises(
        InputError, match="Out of memory on cpu with 3 prompts of 9 tokens; about 1 at a time"
    ):
        model.run(ids)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_adapted_models_open_with_their_adapter(ids: torch.Tensor) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(
        target_modules=["c_attn", "c_proj"], r=2, init_lora_weights=False, fan_in_fan_out=True
    )
    adapted = peft.get_peft_model(tiny("gpt2"), config)
    model = open_model(adapted.eval())
    with torch.no_grad():
        assert torch.equal(model.run(ids).logits, adapted(ids, use_cache=False).logits)
    assert not torch.equal(model.run(ids).logits, open_model(tiny("gpt2")).run(ids).logits)
    run = model.run(ids, keep=["head_out.0", "attn_out.0"], edits=[ablate("head_out.1.2")])
    bias = model.hf.transformer.h[0].attn.c_proj.bias
    torch.testing.assert_close(run["head_out.0"].sum(2) + bias, run["attn_out.0"])


def test_quantised_models_open(ids: torch.Tensor) -> None:
    quanto = pytest.importorskip("optimum.quanto", reason="optimum-quanto is not installed")
    hf = tiny("llama")
    quanto.quantize(hf, weights=quanto.qint8, exclude=["lm_head"])
    quanto.freeze(hf)
    model = open_model(hf)
    run = model.run(ids, keep=["head_out.0", "attn_out.0"])
    torch.testing.assert_close(run["head_out.0"].sum(2), run["attn_out.0"])


def test_models_placed_by_a_device_map_open(saved: Path, ids: torch.Tensor, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
              "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}  # fmt: skip
    model = open_model(saved, device_map=places, offload_folder=str(tmp_path / "offload"))
    assert next(model.hf.model.layers[1].parameters()).is_meta
    expected = open_model(saved).run(ids, keep=list(model.sites))
    found = model.run(ids, keep=list(model.sites))
    for site in model.sites:
        torch.testing.assert_close(found[site], expected[site])


def test_errors_are_cutaways_own() -> None:
    assert issubclass(ModelError, CutawayError)


def test_weights_that_are_not_numbers_are_named_as_the_cause() -> None:
    hf = tiny("gpt2")
    hf.transformer.h[0].mlp.c_fc.weight.data[0, 0] = float("nan")
    with pytest.raises(ModelError, match="own logits are not finite"):
        open_model(hf)
