"""How quickly Cutaway answers: `cutaway --help`, and what `import cutaway` adds to `import torch`.

    python benchmarks/startup.py [--repetitions 10]

Whole processes are timed, from start to exit, in interleaved rounds. What `import cutaway` adds is
measured twice: as it is, with names loaded when they are first used, and with everything loaded
that opening and sweeping need, over torch and transformers.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from table import Measurement, interleaved, say, show

CODE = {
    "nothing": "",
    "torch": "import torch",
    "torch, cutaway": "import torch, cutaway",
    "torch, transformers": "import torch; from transformers import AutoModelForCausalLM",
    "torch, transformers, cutaway.open": "import torch; from transformers import "
    "AutoModelForCausalLM; import cutaway; cutaway.open; cutaway.sweep",
    "help": "import sys; sys.argv = ['cutaway', '--help']; from cutaway.cli import main; main()",
}


def process(code: str) -> None:
    """Run some code in a fresh interpreter."""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description="How quickly Cutaway answers.")
    arguments.add_argument("--repetitions", type=int, default=10)
    repetitions = arguments.parse_args().repetitions
    seconds = interleaved(
        {name: lambda code=code: process(code) for name, code in CODE.items()}, repetitions
    )
    detail = {"repetitions": repetitions}

    def median(name: str) -> float:
        return statistics.median(seconds[name])

    def added(name: str, base: str) -> float:
        pairs = zip(seconds[name], seconds[base], strict=True)
        return statistics.median(a - b for a, b in pairs)

    figures = (
        ("cutaway --help, whole process", median("help"), 0.5),
        ("import cutaway, over import torch", added("torch, cutaway", "torch"), 1.0),
        (
            "everything that opening and sweeping need, over torch and transformers",
            added("torch, transformers, cutaway.open", "torch, transformers"),
            None,
        ),
        ("import torch, whole process", median("torch"), None),
        ("Python itself, whole process", median("nothing"), None),
    )
    show([say(Measurement(name=name, value=value, unit="s", bar=bar, detail=detail))
          for name, value, bar in figures])  # fmt: skip


if __name__ == "__main__":
    main()
