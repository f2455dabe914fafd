"""Tiny random models of any family: what tests and the table of families are made with.

`tiny("llama")` takes the family's own configuration class, makes every size it has small, and
initialises the weights with a seed. Weights are spread wider than for training, so that every part
matters to the output.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from cutaway.errors import ModelError

_SIZES: dict[str, Any] = {
    "hidden_size": 32, "n_embd": 32, "d_model": 32,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "attention_heads": 4, "num_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 48, "ffn_dim": 48, "n_inner": 48, "ffn_hidden_size": 48,
    "vocab_size": 96, "max_position_embeddings": 64, "n_positions": 64, "n_ctx": 64,
    "max_seq_len": 64, "rotary_dim": 4, "word_embed_proj_dim": 32,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_topk": 2, "moe_intermediate_size": 24, "n_shared_experts": 1,
    "shared_expert_intermediate_size": 24, "n_group": 2, "topk_group": 1,
    "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8, "v_head_dim": 8, "sliding_window": 4, "window_size": 4,
    "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "num_nextn_predict_layers": 0,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "attention_dropout": 0.0,
    "hidden_dropout": 0.0, "dropout": 0.0, "activation_dropout": 0.0, "resid_dropout": 0.0,
    "embed_dropout": 0.0, "layerdrop": 0.0, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
_PER_FAMILY: dict[str, dict[str, Any]] = {
    "codegen": {"n_head": 4, "rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "intermediate_size": 48},
    "biogpt": {"pad_token_id": 0},
    "xglm": {"pad_token_id": 0},
    "opt": {"pad_token_id": 0},
    "ernie4_5_moe": {"moe_k": 2},
    "gemma2": {"query_pre_attn_scalar": 8},
    "falcon": {"num_kv_heads": 2},
}

_LARGEST = 3_000_000


def tiny_config(model_type: str, **overrides: Any) -> Any:
    """A small configuration of a family."""
    config_class = CONFIG_MAPPING[model_type]
    default = config_class()
    text = default.get_text_config(decoder=True)
    if text is not default:
        config_class, default = type(text), text
    # A name that the configuration only knows as an alias would be refused by some classes.
    known = set(default.to_dict()) - set(getattr(default, "attribute_map", {}))
    sizes = {name: value for name, value in _SIZES.items() if name in known}
    sizes |= _PER_FAMILY.get(model_type, {}) | overrides
    if "qk_rope_head_dim" in known:  # latent attention: the rotary part is a width of its own
        sizes |= {"head_dim": 4, "num_key_value_heads": 4}
        sizes = {name: value for name, value in sizes.items() if name in known} | overrides
    if "layer_types" in known and "layer_types" not in overrides:
        sizes["layer_types"] = _layer_types(default, int(sizes.get("num_hidden_layers", 2)))
    return config_class(**sizes)


def _layer_types(default: Any, depth: int) -> list[str] | None:
    """One layer of each type that the family mixes, as far as the depth allows."""
    named = getattr(default, "layer_types", None)
    if not named:
        return None
    kinds = list(dict.fromkeys(named))
    return [kinds[layer % len(kinds)] for layer in range(depth)]


def tiny(
    model_type: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> Any:
    """A small random model of a family, in evaluation mode."""
    config = tiny_config(model_type, **overrides)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            size = sum(w.numel() for w in AutoModelForCausalLM.from_config(config).parameters())
        if size > _LARGEST:
            raise ModelError(
                f"The family {model_type!r} stays at {size:,} parameters when its usual sizes are "
                "made small, which is not tiny."
            )
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                # Norms keep their shape but not their ones: a wrong norm must show.
                if weight.ndim < 2 or "norm" in name or ".ln" in name:
                    weight.add_(0.2 * torch.randn_like(weight))
                else:
                    weight.normal_(std=0.3 if weight.shape[-1] > 4 else 0.5)
    return model
