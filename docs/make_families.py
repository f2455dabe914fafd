"""Writes docs/families.md: which families of transformers open and verify.

    python docs/make_families.py [--only llama,gpt2] [--out docs/families.md]

For every model type that `AutoModelForCausalLM` knows, in a process of its own with a bound on
memory and on time:

1. a tiny random model is made from the family's own configuration class (`cutaway.model.tiny`)
   and run as it is;
2. it is opened, which verifies it;
3. what happened is one row of the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cutaway.errors import CutawayError
from cutaway.model.family import FAMILIES
from cutaway.model.load import open_model
from cutaway.model.tiny import tiny

MEMORY = 6 * 2**30
SECONDS = 40


@dataclass(frozen=True, kw_only=True)
class Row:
    """What happened with one family."""

    family: str
    """The configuration's `model_type`."""
    outcome: str
    """`opens`, `refused`, `failed` (an error that is not a refusal) or `not built`."""
    detail: str
    """What is particular to the family, or the reason."""


def particulars(model_type: str) -> Row:
    """Make, run, open and describe a tiny model. Runs in a process of its own."""
    try:
        hf = tiny(model_type)
        with torch.no_grad():
            hf(input_ids=torch.tensor([[3, 4, 5, 6]]))
    except Exception as error:
        return Row(family=model_type, outcome="not built", detail=sentence(error))
    try:
        model = open_model(hf)
    except CutawayError as error:
        return Row(family=model_type, outcome="refused", detail=sentence(error))
    except Exception as error:
        return Row(family=model_type, outcome="failed", detail=sentence(error))
    kinds = {site.kind for site in model.sites}
    notes = [
        "declared" if model_type in FAMILIES else "inferred",
        "grouped heads" if model.n_kv_heads < model.n_heads else "",
        "parallel layers" if model.parallel else "",
        "experts" if "router" in kinds else "",
        "added positions" if "pos_embed" in kinds else "",
    ]
    return Row(family=model_type, outcome="opens", detail=", ".join(filter(None, notes)))


def sentence(error: Exception) -> str:
    """The first sentence of an error, fit for a table's cell."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = " ".join(lines) or type(error).__name__
    if not isinstance(error, CutawayError):
        text = f"{type(error).__name__}: {text}"
    text = text.split("; verify=False")[0].split("; declare the family")[0]
    text = text if len(text) <= 240 else text[:237].rsplit(" ", 1)[0] + " …"
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def child(model_type: str, answers: Connection) -> None:
    """The process of one family: bounded, quiet, and it answers once."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    answers.send(particulars(model_type))


def attempt(model_type: str) -> Row | None:
    """One family's row from a process of its own; None when it did not answer in time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(model_type, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(SECONDS) else None
    except EOFError:
        detail = "Its process ended without an answer."
        return Row(family=model_type, outcome="not built", detail=detail)
    finally:
        process.kill()
        process.join()


def examined(model_type: str) -> Row:
    """One family's row. A time-out is tried once more: the machine may have been busy."""
    late = f"Its tiny model took more than {SECONDS} s."
    row = attempt(model_type) or attempt(model_type)
    row = row or Row(family=model_type, outcome="not built", detail=late)
    print(f"{row.outcome:9} {row.family:28} {row.detail}", file=sys.stderr, flush=True)
    return row


HEAD = """# Families

<!-- Written by docs/make_families.py; not edited by hand. -->

Every causal language model family of transformers {version}, tried as a tiny random model:
**{opens} of {all} open and verify.** Verification proves, on a short padded probe, that every site
is what its name says ([what is proven](sites.md#what-is-proven)); a family that fails is refused
rather than opened wrongly.

*Declared* means that a few lines in `cutaway/model/family.py` say where the family keeps a part;
*inferred* means that everything was read off the module tree. A family that is not listed is tried
by inference too. Sizes and options other than the tiny model's may differ from it: each model is
verified again when it is opened.
"""

TITLES = {
    "opens": ("Open and verify", "", "Particulars"),
    "refused": (
        "Refused",
        "Not understood, or not what a sum of attention and MLP can describe (state-space and "
        "recurrent mixers, encoders, encoder-decoders, altered streams).",
        "Reason",
    ),
    "failed": (
        "Fail",
        "The tiny model runs by itself, and opening it raised an error that is not a refusal.",
        "Error",
    ),
    "not built": (
        "Not tried",
        "No tiny model that runs could be made from the family's configuration alone, so this says "
        "nothing about a real one.",
        "Reason",
    ),
}


def page(rows: list[Row]) -> Iterator[str]:
    """The page's lines."""
    opens = sum(row.outcome == "opens" for row in rows)
    yield HEAD.format(version=transformers.__version__, opens=opens, all=len(rows))
    for outcome, (title, text, column) in TITLES.items():
        chosen = [row for row in rows if row.outcome == outcome]
        if not chosen:
            continue
        yield f"## {title} ({len(chosen)})\n"
        if text:
            yield f"{text}\n"
        yield f"| Family | {column} |"
        yield "| --- | --- |"
        yield from (f"| `{row.family}` | {row.detail} |" for row in chosen)
        yield ""


def main() -> None:
    """Examine the families and write the page."""
    arguments = argparse.ArgumentParser(description="Write the table of families.")
    arguments.add_argument("--only", default="", help="families, separated by commas")
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent / "families.md")
    chosen = arguments.parse_args()
    transformers.logging.set_verbosity_error()
    families = sorted(chosen.only.split(",") if chosen.only else MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    # One at a time: a process must not be forked while another thread holds a lock.
    rows = [examined(family) for family in families]
    chosen.out.write_text("\n".join(page(rows)).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
