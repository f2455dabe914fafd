"""EAP-IG and AutoCircuit on the works of circuits.py; run in their environment, without Cutaway.

    python benchmarks/peer_circuits.py WORK REPETITIONS THREADS SCORES

The same random GPT-2 weights and the same pairs as in circuits.py, in TransformerLens'
HookedTransformer. EAP-IG asks for CUDA by name, so its `torch.zeros` is told the CPU; and it reads
text, so its tokenizer step is handed the token numbers. Nothing else of it is changed. Prints one
JSON line, and saves the scores by edge, which circuits.py holds against its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rss import resident, timed
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel

WIDTH = 15
SHAPES = {"acdc": (4, 256, 8, 1000)}
SMALL = (12, 768, 12, 50257)
SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TAU = 1e-4


def pairs(vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of sweeps.py: 8 pairs that differ from token 5 on."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(5, vocabulary, (8, WIDTH), generator=generator)
    corrupt = torch.randint(5, vocabulary, (8, WIDTH), generator=generator)
    corrupt[:, :5] = clean[:, :5]
    return clean, corrupt


def models(layers: int, width: int, heads: int, vocabulary: int) -> tuple[Any, HookedTransformer]:
    """A GPT-2 with random weights, and the same weights in TransformerLens."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    hf = GPT2LMHeadModel(config).eval()
    lens = HookedTransformer(HookedTransformerConfig(
        n_layers=layers, d_model=width, n_heads=heads, d_head=width // heads, d_mlp=4 * width,
        n_ctx=1024, d_vocab=vocabulary, act_fn="gelu_new", normalization_type="LN", device="cpu",
        eps=config.layer_norm_epsilon,
    ))  # fmt: skip
    lens.load_state_dict(convert_gpt2_weights(hf, lens.cfg), strict=False)
    clean = pairs(vocabulary)[0]
    with torch.no_grad():
        ours, theirs = hf(input_ids=clean).logits, lens(clean)
    difference = (ours.log_softmax(-1) - theirs.log_softmax(-1)).abs().max()
    assert difference < 1e-4, f"the two models differ by {difference}"
    return hf, lens


def difference(logits: torch.Tensor, *_: object) -> torch.Tensor:
    """The summed logit difference, which the peer divides by the number of prompts."""
    return (logits[:, -1, 3] - logits[:, -1, 4]).sum()


def attribution(lens: HookedTransformer, method: str) -> tuple[Callable[[], object], Any]:
    """EAP, EAP-IG with 5 steps, or circuits of ten sizes."""
    from eap import attribute, evaluate, utils
    from eap.graph import Graph

    for name in ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in"):
        getattr(lens, f"set_{name}")(True)
    zeros = torch.zeros

    def on_cpu(*shape: Any, **options: Any) -> torch.Tensor:
        return zeros(*shape, **(options | {"device": "cpu"}))

    def tokens(_: object, ids: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor, int]:
        return ids, None, torch.full((len(ids),), ids.shape[1]), ids.shape[1]

    for module in (attribute, evaluate, utils):
        module.torch.zeros = on_cpu
        if hasattr(module, "tokenize_plus"):
            module.tokenize_plus = tokens
    graph = Graph.from_model(lens)
    batch = [(*pairs(lens.cfg.d_vocab), torch.tensor([3, 4]))]
    if method == "evaluation":
        graph.scores[:] = torch.randn(
            graph.scores.shape, generator=torch.Generator().manual_seed(0)
        )
        chosen: list[torch.Tensor] = []
        for size in SIZES:  # selecting is not timed
            graph.apply_topn(round(size * len(graph.edges)), absolute=True, prune=False)
            chosen.append(graph.in_graph.clone())

        def evaluation() -> None:
            for one in chosen:
                graph.in_graph[:] = one
                evaluate.evaluate_graph(lens, graph, batch, difference, quiet=True)

        return evaluation, graph
    if method == "eap":
        return lambda: attribute.attribute(lens, graph, batch, difference, "EAP", quiet=True), graph
    return lambda: attribute.attribute(
        lens, graph, batch, difference, "EAP-IG-inputs", ig_steps=5, quiet=True
    ), graph  # fmt: skip


def acdc(lens: HookedTransformer) -> tuple[Callable[[], object], int]:
    """ACDC at one threshold, and how many edges there are."""
    from auto_circuit.data import PromptDataLoader, PromptDataset
    from auto_circuit.prune_algos.ACDC import acdc_prune_scores
    from auto_circuit.utils.graph_utils import patchable_model

    lens.set_use_attn_result(True)
    lens.set_use_split_qkv_input(True)
    lens.set_use_hook_mlp_in(True)
    clean, corrupt = pairs(lens.cfg.d_vocab)
    answers = [torch.tensor([3])] * len(clean)
    others = [torch.tensor([4])] * len(clean)
    loader = PromptDataLoader(PromptDataset(clean, corrupt, answers, others), seq_len=None,
                              diverge_idx=0, batch_size=len(clean))  # fmt: skip
    model = patchable_model(lens, factorized=True, slice_output="last_seq", separate_qkv=True)
    exponent = round(np.log10(TAU))
    return lambda: acdc_prune_scores(
        model, loader, None, tao_exps=[exponent], tao_bases=[1]
    ), model.n_edges  # fmt: skip


def main() -> None:
    """Measure and print."""
    work, repetitions, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    hf, lens = models(*SHAPES.get(work, SMALL))
    clean = pairs(lens.cfg.d_vocab)[0]
    if work == "acdc":
        run, edges = acdc(lens)
        graph = None
    else:
        run, graph = attribution(lens, work)
        edges = len(graph.edges)

    def forward() -> None:
        with torch.no_grad():
            hf(input_ids=clean, use_cache=False)

    forward()
    start = resident()
    plain, _ = timed(forward, 9, start)
    kept: list[Any] = []
    seconds, mib = timed(lambda: kept.append(run()), repetitions, start)
    told: dict[str, object] = {"plain": plain, "seconds": seconds, "mib": mib, "edges": edges}
    if graph is not None and work != "evaluation":
        scores = {name: float(edge.score) for name, edge in graph.edges.items()}
        np.savez(sys.argv[4], names=np.array(list(scores)), scores=np.array(list(scores.values())))
    if work == "acdc":
        left = sum(int((each == torch.inf).sum()) for each in kept[-1].values())
        told["left"] = left
    print(json.dumps(told))


if __name__ == "__main__":
    main()
