"""What opening a model costs: time with no taps, time while keeping, memory, verification.

    python benchmarks/opening.py [--repetitions 30] [--threads 2] [--peer-python PATH]

A GPT-2-small shape (12 layers, 12 heads, width 768, vocabulary 50,257) with random weights, 8 × 64
tokens, CPU, float32. Times are medians of ratios within interleaved rounds (A B C A B C …), so that
the ratio is of one run on one machine. "The same attention kernels" means eager attention on both
sides where patterns are kept: a fused kernel never computes them.

Memory is the peak resident size (VmHWM of /proc, so this part needs Linux) of fresh processes that
load the same weights from a directory: plainly, with one short forward pass, because weights come
into memory when they are first read; and by opening them, which verifies them. Both are also given
above what the imports alone take.

`--peer-python` is a Python in whose environment TransformerLens is installed; the same shape is
then measured there, by peer.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from table import Measurement, interleaved, ratio, say, show
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from cutaway.model.load import open_model

KEPT = ["resid_pre", "attn_out", "mlp_out", "z", "pattern"]
BATCH, LENGTH, VOCABULARY = 8, 64, 50257
HERE = Path(__file__).parent


def plain(attention: str) -> GPT2LMHeadModel:
    """GPT-2 small with random weights."""
    torch.manual_seed(0)
    return GPT2LMHeadModel._from_config(GPT2Config(), attn_implementation=attention).eval()


def times(repetitions: int, measured: list[Measurement]) -> None:
    """Forward passes of the bare model, of the opened one, and of one that keeps."""
    ids = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    fused, eager = plain("sdpa"), plain("eager")
    opened_fused, opened_eager = open_model(fused), open_model(eager)

    @torch.no_grad()
    def bare(hf: GPT2LMHeadModel) -> torch.Tensor:
        return hf(input_ids=ids, use_cache=False).logits

    seconds = interleaved(
        {
            "bare, fused": lambda: bare(fused),
            "opened, fused": lambda: opened_fused.run(ids),
            "bare, eager": lambda: bare(eager),
            "opened, eager": lambda: opened_eager.run(ids),
            "keeping, eager": lambda: opened_eager.run(ids, keep=KEPT),
            "keeping, fused": lambda: opened_fused.run(ids, keep=KEPT),
        },
        repetitions,
    )
    detail = {"repetitions": repetitions, "tokens": f"{BATCH} × {LENGTH}"}
    base = statistics.median(seconds["bare, fused"])
    name = "bare forward, fused attention"
    measured.append(say(Measurement(name=name, value=1000 * base, unit="ms", detail=detail)))
    for name, run, beside, bar in (
        ("opened, no taps / bare (fused attention)", "opened, fused", "bare, fused", 1.03),
        ("opened, no taps / bare (eager attention)", "opened, eager", "bare, eager", 1.03),
        (f"keeping {', '.join(KEPT)} / bare (eager on both sides)", "keeping, eager",
         "bare, eager", 1.3),
        ("the same / bare with fused attention", "keeping, fused", "bare, fused", None),
    ):  # fmt: skip
        value = ratio(seconds, run, beside)
        measured.append(say(Measurement(name=name, value=value, unit="×", bar=bar, detail=detail)))
    verification = opened_fused.verification
    assert verification is not None
    name = "verification at opening"
    measured.append(say(Measurement(name=name, value=verification.seconds, unit="s", bar=1.0)))


LOAD = {
    "imports": "import cutaway.model.load\nfrom transformers import GPT2LMHeadModel",
    "plain": "from transformers import AutoModelForCausalLM\nimport torch\n"
    "model = AutoModelForCausalLM.from_pretrained({path!r}, use_safetensors=True)\n"
    "with torch.no_grad(): model(input_ids=torch.arange(5)[None], use_cache=False)",
    "opened": "from cutaway.model.load import open_model\nopen_model({path!r})",
}
# Not ru_maxrss: a child starts with its parent's.
PEAK = (
    "\nfrom pathlib import Path; lines = Path('/proc/self/status').read_text().splitlines()\n"
    "print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM')))"
)


def peak(what: str, path: str) -> float:
    """The peak resident size of a fresh process, in MiB."""
    code = LOAD["imports"] + "\n" + LOAD[what].format(path=path) + PEAK
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def memory(measured: list[Measurement]) -> None:
    """Peak memory of opening against that of plain loading, and both above the imports."""
    with tempfile.TemporaryDirectory() as path:
        model = plain("sdpa")
        own = sum(w.numel() * w.element_size() for w in model.parameters()) / 2**20
        model.save_pretrained(path)
        del model
        imports, loaded, opened = (peak(what, path) for what in ("imports", "plain", "opened"))
    detail: dict[str, object] = {
        "weights_mib": own, "imports_mib": imports, "plain_mib": loaded, "opened_mib": opened,
    }  # fmt: skip
    for name, value, bar in (
        ("peak memory of the process, opened / plain", opened / loaded, 1.15),
        ("peak memory above the imports, opened / the weights", (opened - imports) / own, None),
        ("peak memory above the imports, plain / the weights", (loaded - imports) / own, None),
    ):
        measured.append(say(Measurement(name=name, value=value, unit="×", bar=bar, detail=detail)))


def peer(python: str | None, repetitions: int, measured: list[Measurement]) -> None:
    """TransformerLens, in its own environment."""
    if python is None:
        print("No --peer-python was given, so TransformerLens is not measured.", file=sys.stderr)
        return
    command = [python, str(HERE / "peer.py"), str(repetitions), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it gave no reason"]
        print(f"TransformerLens could not be measured: {last[0]}", file=sys.stderr)
        return
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    measured.extend(say(Measurement(**json.loads(line))) for line in lines)


def main() -> None:
    """Measure everything and print the table."""
    arguments = argparse.ArgumentParser(description="What opening a model costs.")
    arguments.add_argument("--repetitions", type=int, default=30)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--peer-python", help="a Python that has TransformerLens")
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    logging.disable_progress_bar()
    measured: list[Measurement] = []
    times(chosen.repetitions, measured)
    memory(measured)
    peer(chosen.peer_python, chosen.repetitions, measured)
    show(measured)


if __name__ == "__main__":
    main()
