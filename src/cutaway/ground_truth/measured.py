"""Each method on each model whose circuit is known: agreement with the truth, time, memory.

For every model, in turn:

1. it is opened with its pairs, and prepared for masks once, for all methods;
2. it is run once forwards and backwards (EAP), so that no method pays for what libraries do once;
3. each method scores every edge, with the options that it has by itself. Time is the processor's,
   of all threads together, so that other work on the machine does not count. Memory is the peak
   above what the process holds with the model open (see `memory`).

A journal keeps every finished row, so that an interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch

from cutaway.behaviours.provenance import version
from cutaway.circuits import Masked, discover
from cutaway.ground_truth.agreement import agreement
from cutaway.ground_truth.cases import GroundTruthError, choose_methods, choose_models, opened
from cutaway.ground_truth.memory import peak
from cutaway.organisms import Organism
from cutaway.patch.journal import Journal


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one model."""

    model: str
    """The model's name."""
    method: str
    """The method's name."""
    edges: float
    """AUROC over edges."""
    nodes: float
    """AUROC over heads and MLPs."""
    precision: float
    """The share of true edges among as many best ones."""
    seconds: float
    """Processor time."""
    megabytes: float
    """Peak memory above the model, in 10⁶ bytes; NaN where the system does not tell."""


_FIGURES = ("edges", "nodes", "precision", "seconds", "megabytes")


def identity(*, examples: int, seed: int) -> dict[str, object]:
    """Whose work a journal holds: rows of other models and methods may join it."""
    return {
        "work": "ground-truth", "cutaway": version(), "torch": torch.__version__,
        "transformers": metadata.version("transformers"), "examples": examples, "seed": seed,
    }  # fmt: skip


def measure(
    models: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    *,
    examples: int = 50,
    seed: int = 0,
    journal: Journal | None = None,
) -> Iterator[Row]:
    """Each method on each model (all, when not given), row by row, model after model.

    `examples` is the number of pairs, and `seed` draws them and whatever a method draws.

    Raises:
        GroundTruthError: a name is not known, or there are too few examples.
    """
    chosen, names = choose_models(models), choose_methods(methods)
    if examples < 2:
        raise GroundTruthError(f"A comparison takes 2 examples or more; found {examples}.")
    return _rows(chosen, names, examples, seed, journal)


def _rows(
    models: Sequence[str], methods: Sequence[str], examples: int, seed: int, journal: Journal | None
) -> Iterator[Row]:
    for model in models:
        ready: tuple[Organism, Masked] | None = None
        for method in methods:
            key = f"{model}/{method}"
            kept = None if journal is None else journal.finished(key)
            if kept is None:
                ready = ready or _ready(model, examples, seed)
                kept = {"figures": _figures(*ready, method, seed)}
                if journal is not None:
                    journal.keep(key, kept)
            figures = dict(zip(_FIGURES, map(float, kept["figures"]), strict=True))
            yield Row(model=model, method=method, **figures)


def _ready(model: str, examples: int, seed: int) -> tuple[Organism, Masked]:
    organism = opened(model, examples=examples, seed=seed)
    on = Masked(organism.model)
    discover(on, organism.behaviour, "eap")
    return organism, on


def _figures(organism: Organism, on: Masked, method: str, seed: int) -> np.ndarray:
    with peak() as memory:
        began = time.process_time()
        scores = discover(on, organism.behaviour, method, seed=seed)
        seconds = time.process_time() - began
    found = agreement(scores, organism.edges)
    return np.array(
        [found.edges, found.nodes, found.precision, seconds, memory.bytes / 1e6], dtype=float
    )
