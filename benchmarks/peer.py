"""TransformerLens on the shape of opening.py; run in its environment, which has no Cutaway.

    python benchmarks/peer.py REPETITIONS THREADS

Its bridge wraps a Hugging Face GPT-2 with eager attention, as it does by default. Printed as JSON
lines: its forward, and its caching of the same five kinds of activation, over an unwrapped copy of
the model with eager attention, in interleaved rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from importlib.metadata import version

import torch
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

LAYERS = 12
NAMES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z", "attn.hook_pattern")
KEPT = [f"blocks.{layer}.{name}" for layer in range(LAYERS) for name in NAMES]


def plain() -> GPT2LMHeadModel:
    """GPT-2 small with random weights."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=LAYERS, architectures=["GPT2LMHeadModel"])
    return GPT2LMHeadModel._from_config(config, attn_implementation="eager").eval()


def bridge() -> TransformerBridge:
    """The same model in TransformerLens; it wants a tokenizer, which is never used."""
    words = Tokenizer(models.WordLevel({"<bos>": 0, "a": 1}, unk_token="<bos>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<bos>",
        eos_token="<bos>",
        pad_token="<bos>",
        add_bos_token=True,
        name_or_path="words",
    )
    return TransformerBridge.boot_transformers(
        "gpt2", hf_model=plain(), tokenizer=tokenizer, device="cpu"
    )


def main() -> None:
    """Measure and print."""
    repetitions, threads = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    ids = torch.randint(0, 50257, (8, 64), generator=torch.Generator().manual_seed(0))
    hf, lens = plain(), bridge()
    _, cache = lens.run_with_cache(ids, names_filter=KEPT)
    assert set(KEPT) <= set(cache.keys()), "not everything asked for was kept"
    runs = {
        "hf": lambda: hf(input_ids=ids, use_cache=False).logits,
        "plain": lambda: lens(ids),
        "keeping": lambda: lens.run_with_cache(ids, names_filter=KEPT),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repetitions + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)

    def ratio(name: str, base: str) -> float:
        pairs = zip(seconds[name], seconds[base], strict=True)
        return statistics.median(a / b for a, b in pairs)

    title = f"TransformerLens {version('transformer-lens')}"
    for name, value in (
        (f"{title}: forward / bare (eager)", ratio("plain", "hf")),
        (f"{title}: keeping the same / bare (eager)", ratio("keeping", "hf")),
    ):
        detail = {"repetitions": repetitions}
        print(json.dumps({"name": name, "value": value, "unit": "×", "detail": detail}))


if __name__ == "__main__":
    main()
