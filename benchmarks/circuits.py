"""Circuit discovery and evaluation beside EAP-IG and AutoCircuit, in time and in memory.

    python benchmarks/circuits.py [--repetitions 3] [--threads 2] [--peer-python PATH]
    python benchmarks/circuits.py --llama

A GPT-2-small shape with random weights, 8 pairs of 15 tokens that differ from token 5 on, float32:
EAP, EAP-IG (5 steps), and circuits of ten sizes. ACDC on a 4-layer, 8-head, width-256 model. Each
work runs in a process of its own, ours and the peer's one after the other, and is given in plain
Hugging Face forwards of the same batch, measured in the same process (processor time), and in MiB
that the process held above what it held after one plain forward. The weights and the pairs are the
same on both sides, so EAP's scores are held against each other as well (EAP-IG takes the ends of
its steps, we the middles; the sign is opposite by convention).

`--peer-python` is a Python in whose environment the peers are installed (peer_circuits.py).
`--llama` runs instead EAP-IG on a randomly initialised Llama shape of 1.24 billion parameters
(grouped queries, bf16, 8 pairs of 64 tokens) in a budget of 4 GB above the weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rss import resident, timed
from sweeps import opened, pairs_of
from table import Measurement, say, show
from transformers import LlamaConfig, LlamaForCausalLM

from cutaway.behaviours import Behaviour
from cutaway.circuits import EdgeScores, Masked, curve, discover, threshold
from cutaway.model import open_model

HERE = Path(__file__).parent
SHAPES = {"acdc": (4, 256, 8, 1000)}
SMALL = (12, 768, 12, 50257)
FASTER = {"eap": 4, "eap-ig": 6, "evaluation": 3, "acdc": 10}
PEERS = {"eap": "EAP-IG", "eap-ig": "EAP-IG", "evaluation": "EAP-IG", "acdc": "AutoCircuit"}
TITLES = {"eap": "EAP", "eap-ig": "EAP-IG, 5 steps", "evaluation": "circuits of ten sizes",
          "acdc": "ACDC, per edge"}  # fmt: skip
SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
TAU = 1e-4
LLAMA_BUDGET = 4 * 2**30


def ours(work: str, repetitions: int, path: str) -> dict[str, object]:
    """One work in this process: seconds, plain seconds, MiB, edges."""
    model = opened(*SHAPES.get(work, SMALL))
    pairs = pairs_of(8, model.d_vocab)

    def forward() -> None:
        with torch.no_grad():
            model.hf(input_ids=pairs.clean.ids, use_cache=False)

    forward()
    start = resident()
    plain, _ = timed(forward, 9, start)
    runs: dict[str, Callable[[], Any]] = {
        "eap": lambda: discover(Masked(model), pairs, "eap"),
        "eap-ig": lambda: discover(Masked(model), pairs, "eap-ig", steps=5),
        "acdc": lambda: discover(Masked(model), pairs, "acdc", threshold=TAU),
    }
    if work == "evaluation":
        scores = discover(model, pairs, "random")
        runs["evaluation"] = lambda: curve(Masked(model), pairs, scores, sizes=SIZES)
    kept: list[Any] = []
    seconds, mib = timed(lambda: kept.append(runs[work]()), repetitions, start)
    told: dict[str, object] = {"plain": plain, "seconds": seconds, "mib": mib}
    if isinstance(kept[-1], EdgeScores):
        names = [str(edge) for edge in kept[-1].graph.edges]
        np.savez(path, names=np.array(names), scores=kept[-1].mean.to_numpy())
        told["edges"] = len(names)
        if work == "acdc":
            told["left"] = len(threshold(kept[-1], TAU, by="score"))
    return told


def child(python: str, script: str, *arguments: object) -> dict[str, Any]:
    """The JSON line that a process of its own prints last."""
    command = [python, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def beside(work: str, asked: argparse.Namespace) -> list[Measurement]:
    """Ours, and the peer's when there is one, on one work."""
    found: list[Measurement] = []
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as kept:
        files = {side: f"{kept}/{side}.npz" for side in ("Cutaway", PEERS[work])}
        arguments = [work, asked.repetitions, asked.threads]
        told["Cutaway"] = child(
            sys.executable, "circuits.py", "--work", work, "--repetitions", asked.repetitions,
            "--threads", asked.threads, "--keep", files["Cutaway"],
        )  # fmt: skip
        if asked.peer_python:
            told[PEERS[work]] = child(asked.peer_python, "peer_circuits.py", *arguments,
                                      files[PEERS[work]])  # fmt: skip
        agreement = agree(files["Cutaway"], files[PEERS[work]]) if work == "eap" else None
    for side, one in told.items():
        per = one["edges"] if work == "acdc" else 1
        unit, value = "plain forwards", one["seconds"] / one["plain"] / per
        detail: dict[str, object] = {key: one[key] for key in ("seconds", "plain")}
        detail |= {key: one[key] for key in ("edges", "left") if key in one}
        name = f"{TITLES[work]}: {side}"
        found.append(say(Measurement(name=name, value=value, unit=unit, detail=detail)))
        name = f"{TITLES[work]}: {side}, memory above the model"
        found.append(say(Measurement(name=name, value=one["mib"], unit="MiB")))
    if asked.peer_python:
        mine, theirs = told["Cutaway"], told[PEERS[work]]
        found += compared(work, mine, theirs, agreement)
    return found


def compared(
    work: str, mine: dict[str, Any], theirs: dict[str, Any], agreement: float | None
) -> list[Measurement]:
    """The ratios that the bars are about."""
    per = mine["edges"] / theirs["edges"] if work == "acdc" else 1.0
    ratio = mine["seconds"] / theirs["seconds"] / per
    title = TITLES[work]
    name, faster = f"{title}: processor seconds, ours / {PEERS[work]}", {"faster": 1 / ratio}
    bar = 1 / FASTER[work]
    found = [say(Measurement(name=name, value=ratio, unit="×", bar=bar, detail=faster))]
    if work in ("eap", "eap-ig"):
        name = f"{title}: memory, ours / {PEERS[work]}"
        value = mine["mib"] / theirs["mib"]
        found.append(say(Measurement(name=name, value=value, unit="×", bar=0.25)))
    if agreement is not None:
        name = f"{title}: largest difference of a score, by the largest"
        found.append(say(Measurement(name=name, value=agreement, unit="×", bar=1e-3)))
    return found


def agree(mine: str, theirs: str) -> float | None:
    """The largest difference of an edge's score, over the largest score; None without both."""
    if not (Path(mine).exists() and Path(theirs).exists()):
        return None
    with np.load(mine) as a, np.load(theirs) as b:
        known = dict(zip(b["names"].tolist(), b["scores"].tolist(), strict=True))
        other = np.array([known[name] for name in a["names"].tolist()])
        return float(np.abs(np.abs(a["scores"]) - np.abs(other)).max() / np.abs(other).max())


def llama(threads: int) -> list[Measurement]:
    """EAP-IG on 1.24 billion random bf16 parameters, in a budget."""
    torch.set_num_threads(threads)
    config = LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
        dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    hf = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = (torch.randint(5, 128256, (8, 64), generator=generator) for _ in range(2))
    pairs = Behaviour.from_tokens(clean.tolist(), corrupt.tolist(), answers=[3] * 8,
                                  wrong_answers=[4] * 8)  # fmt: skip
    model = open_model(hf)
    weights = sum(each.numel() * each.element_size() for each in hf.parameters())

    def forward() -> None:
        with torch.no_grad():
            hf(input_ids=clean, use_cache=False, logits_to_keep=1)

    start = resident()
    plain, _ = timed(forward, 2, start)
    work = lambda: discover(model, pairs, "eap-ig", steps=5, memory=LLAMA_BUDGET)  # noqa: E731
    seconds, mib = timed(work, 1, start)
    detail: dict[str, object] = {"weights MiB": weights / 2**20, "seconds": seconds, "plain": plain}
    return [say(Measurement(name="EAP-IG, 1.24 billion parameters: memory above the weights",
                            value=mib, unit="MiB", bar=4096, detail=detail))]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", help="a Python that has the peers")
    parser.add_argument("--works", nargs="*", choices=TITLES, default=list(TITLES))
    parser.add_argument("--llama", action="store_true", help="the 1-billion-parameter run")
    parser.add_argument("--work", choices=TITLES, help=argparse.SUPPRESS)
    parser.add_argument("--keep", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.work:
        print(json.dumps(ours(asked.work, asked.repetitions, asked.keep)))
    elif asked.llama:
        show(llama(asked.threads))
    else:
        show([each for work in asked.works for each in beside(work, asked)])


if __name__ == "__main__":
    main()
