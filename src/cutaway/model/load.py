"""Opening a model: from a hub name, a directory, or an object that is loaded already.

Loading is safe: safetensors only, and no code from a repository unless it is asked for. What was
loaded is read (`anatomy`), probed once for whether attention and MLP run side by side, and
verified; the first reading that verifies is the model.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cutaway.errors import CutawayError, ModelError
from cutaway.model.anatomy import Anatomy, anatomies
from cutaway.model.edits import add
from cutaway.model.model import Model
from cutaway.model.sites import Site
from cutaway.model.size import refuse_too_large
from cutaway.model.verify import probe, verify

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.ckpt", "model.pt")
_SMALL = 2**28


def open_model(
    source: str | Path | Any,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attention: str | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    verify: bool = True,
    **loading: Any,
) -> Model:
    """Open a decoder.

    Args:
        source: a hub name, a local directory, or a loaded model (adapted, quantised or placed by a
            device map ones included), which is left exactly as it is.
        device: where to load to; None takes a GPU when there is one. A loaded model stays put.
        dtype: the weights' type, for example "bfloat16"; None takes the checkpoint's own.
        attention: transformers' name for the attention kernel ("sdpa", "eager", …); None takes the
            model's default. Sites inside attention always run the model's own eager attention.
        revision: a hub branch, tag or commit.
        tokenizer: a loaded tokenizer; None takes the one beside the model, where there is one.
        trust_remote_code: run code that comes with the repository.
        verify: prove the identities of `cutaway.model.verify`, and refuse the model when one fails.
        **loading: passed to `AutoModelForCausalLM.from_pretrained` (`device_map`,
            `quantization_config`, `cache_dir`, …).

    Raises:
        ModelError: the model cannot be found, loaded safely, understood or verified.
    """
    if isinstance(source, (str, Path)):
        hf, found = _load(
            str(source), device, dtype, attention, revision, trust_remote_code, loading
        )
        name = str(source)
    else:
        _refuse_for_loaded(device, dtype, attention, revision, loading)
        hf, found = _given(source)
        name = str(getattr(hf, "name_or_path", "") or type(hf).__name__)
    return _understood(hf, tokenizer if tokenizer is not None else found, name, check=verify)


def _understood(hf: Any, tokenizer: Any, name: str, *, check: bool) -> Model:
    refusal: ModelError | None = None
    for anatomy in _readings(hf, name):
        with _understanding(name):
            model = _assembled(hf, tokenizer, anatomy, name)
        if not check:
            warnings.warn(
                f"{name} was opened without verification: nothing shows that its sites are what "
                "their names say.",
                stacklevel=3,
            )
            return model
        try:
            with _understanding(name):
                found = verify(model)
        except CutawayError as error:
            said = str(error) if isinstance(error, ModelError) else f"{name} was refused: {error}"
            refusal = refusal or ModelError(said)
            continue
        if found.holds:
            model.verification = found
            return model
        refusal = refusal or found.refusal(name)
    assert refusal is not None
    raise refusal


def _readings(hf: Any, name: str) -> list[Anatomy]:
    with _understanding(name):
        return list(anatomies(hf))


@contextmanager
def _understanding(name: str) -> Generator[None]:
    """Whatever makes the reading of an unknown family stumble, said in a sentence."""
    try:
        yield
    except CutawayError:
        raise
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise ModelError(
            f"{name} is built in a way that was not understood ({type(error).__name__}: {first})."
        ) from error


def _assembled(hf: Any, tokenizer: Any, anatomy: Anatomy, name: str) -> Model:
    """The model, once it is known whether its attention and MLP run side by side.

    They do when a change of what the attention adds does not reach what the MLP reads.
    """
    model = Model(hf, tokenizer, anatomy, name=name, parallel=False)
    alone, _ = probe(model)
    noise = torch.randn(anatomy.d_model, generator=torch.Generator().manual_seed(1))
    change = add("attn_out.0", noise, row=1)
    reads = model.run(alone.rows([0, 0]), edits=[change], keep=["mlp_in.0"])[Site("mlp_in", 0)]
    if bool((reads[0] == reads[1]).all()):
        return Model(hf, tokenizer, anatomy, name=name, parallel=True)
    return model


def _refuse_for_loaded(
    device: Any, dtype: Any, attention: Any, revision: Any, loading: dict[str, Any]
) -> None:
    named = {"device": device, "dtype": dtype, "attention": attention, "revision": revision}
    given = [name for name, value in (named | loading).items() if value is not None]
    if given:
        raise ModelError(
            f"A model that is loaded already is left as it is, so {', '.join(given)} cannot be "
            "given; load it that way, or open it by name."
        )


def _given(source: Any) -> tuple[Any, Any]:
    hf = source
    if callable(getattr(source, "get_base_model", None)):
        if getattr(getattr(source, "active_peft_config", None), "is_prompt_learning", False):
            raise ModelError(
                "This adapter adds virtual tokens to the prompt, which Cutaway cannot place; merge "
                "it or open the base model."
            )
        hf = source.get_base_model()
    if not isinstance(hf, torch.nn.Module) or not hasattr(hf, "config"):
        raise ModelError(
            f"{type(source).__name__} is not a model; give a hub name, a directory or a loaded "
            "transformers model."
        )
    if getattr(hf, "get_output_embeddings", lambda: None)() is None:
        raise ModelError(
            f"{type(hf).__name__} has no unembedding; load it with AutoModelForCausalLM."
        )
    return hf, _tokenizer_of(str(getattr(hf, "name_or_path", "") or ""), None, trust=False)


def _tokenizer_of(name: str, revision: str | None, *, trust: bool) -> Any:
    from transformers import AutoTokenizer

    if not name:
        return None
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _load(
    source: str,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    attention: str | None,
    revision: str | None,
    trust: bool,
    loading: dict[str, Any],
) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    if Path(source).is_dir():
        _check_directory(Path(source), trust=trust)
    elif Path(source).exists() or source.startswith((".", "/", "~")):
        raise ModelError(
            f"{source!r} is not a model's directory; give the directory that holds config.json."
        )
    where = _device(device) if "device_map" not in loading else None
    options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": trust, **loading}
    if dtype is not None:
        options["dtype"] = _dtype(dtype)
    if attention is not None:
        options["attn_implementation"] = attention
    if revision is not None:
        options["revision"] = revision
    if where is not None and where.type != "cpu":
        options["device_map"] = {"": str(where)}
    if where is not None and Path(source).is_dir():
        refuse_too_large(Path(source), where, options.get("dtype"))
    with _explained(source), _no_bar_where_quick(source):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, **options
        )
        hf, said = loaded
    _refuse_random(source, sorted(said["missing_keys"]))
    return hf, _tokenizer_of(source, revision, trust=trust)


@contextmanager
def _no_bar_where_quick(source: str) -> Generator[None]:
    """No progress bar for weights on this disk that are loaded in no time."""
    from transformers.utils import logging

    small = sum(file.stat().st_size for file in Path(source).glob("*.safetensors")) < _SMALL
    if not (Path(source).is_dir() and small and logging.is_progress_bar_enabled()):
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _refuse_random(source: str, missing: list[str]) -> None:
    """Weights that the checkpoint does not have would be drawn at random, without a word."""
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{source!r} could not be opened: its weights lack {missing[0]!r}{more}, which its "
            "config.json asks for; give the complete checkpoint of a causal language model."
        )


def _check_directory(path: Path, *, trust: bool) -> None:
    config_path = path / "config.json"
    if not config_path.exists():
        raise ModelError(f"{str(path)!r} has no config.json, so it is not a model's directory.")
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{str(config_path)!r} is not valid JSON: {error}.") from None
    if "auto_map" in config and not trust:
        raise ModelError(
            f"{str(path)!r} brings its own code, which is not run unless asked for; "
            "trust_remote_code=True runs it, once you have read it."
        )
    if (
        not list(path.glob("*.safetensors"))
        and not (path / "model.safetensors.index.json").exists()
    ):
        if any((path / name).exists() for name in _PICKLES):
            raise ModelError(
                f"{str(path)!r} holds its weights as a pickle, which can run code when loaded; "
                "convert them once, where you trust them, with model.save_pretrained(DIR) in "
                "transformers."
            )
        raise ModelError(f"{str(path)!r} has a config.json but no weights (*.safetensors).")


def _device(wanted: str | torch.device | None) -> torch.device:
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise ModelError(
            f"There is no device {str(wanted)!r} here; there is {', '.join(have)}."
        ) from None
    return device


def _dtype(wanted: str | torch.dtype) -> torch.dtype:
    found = wanted if isinstance(wanted, torch.dtype) else getattr(torch, wanted, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"{wanted!r} is not a floating-point type; try 'float32' or 'bfloat16'.")
    return found


@contextmanager
def _explained(source: str) -> Generator[None]:
    """Turn what loading raises into one sentence."""
    try:
        yield
    except SafetensorError as error:
        raise ModelError(
            f"{source!r} could not be opened: a safetensors file is damaged or incomplete "
            f"({error}); copy or download it again."
        ) from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
        text = str(error)
        first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        if "trust_remote_code" in text:
            reason = "it brings its own code, which is not run unless trust_remote_code=True"
        elif "ignore_mismatched_sizes" in text:
            reason = "its weights do not have the shapes that its config.json says"
        elif "safetensors" in text:
            reason = (
                "it has no safetensors weights, and pickles can run code when loaded; convert it "
                "once with model.save_pretrained(DIR) in transformers"
            )
        elif isinstance(error, OSError) and not Path(source).is_dir():
            reason = (
                "there is no such local directory, and the hub does not have it or cannot be "
                f"reached from here ({first})"
            )
        elif "Unrecognized configuration" in text or "does not recognize this architecture" in text:
            reason = f"it is not a causal language model that transformers knows ({first})"
        else:
            reason = first
        raise ModelError(f"{source!r} could not be opened: {reason}.") from error
