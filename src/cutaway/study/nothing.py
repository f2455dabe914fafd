"""Controls: the whole search where there is nothing to be found.

The same discovery, choice of size and evaluation as in the study, on:

- the untrained twin: the same architecture and tokenizer, with weights drawn anew as before
  training. It moves its logits when prompts change, and means nothing by it;
- shuffled answers: the model and its prompts, each with the answers of another pair.

Nothing is found when no circuit keeps the effect, when there is no effect, or when the circuit does
not pass the controls of its evaluation on the held-out prompts (`cutaway.circuits.evaluation`).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator

import torch

from cutaway.behaviours import Behaviour
from cutaway.behaviours.shuffle import other_answers
from cutaway.circuits import CircuitError, Masked, discover, evaluate, smallest, top_n
from cutaway.errors import ModelError
from cutaway.model import Model, open_model
from cutaway.study.attacks import Make
from cutaway.study.verdict import Attack, Outcome

_LARGEST = 2 << 30
_CONTROLS = 20


def nothing(
    model: Model, train: Behaviour, check: Behaviour, *, metric: str, kept: float, seed: int
) -> Iterator[tuple[str, str, Make]]:
    """The kind and name of every control, and what runs it."""

    def searched(on: Model, sides: tuple[Behaviour, Behaviour]) -> Attack:
        return search(on, *sides, metric=metric, kept=kept, seed=seed)

    yield "control", "the untrained twin", lambda: searched(twin(model, seed), (train, check))
    draw = random.Random(seed)
    shuffles = other_answers(train, draw), other_answers(check, draw)
    yield "control", "shuffled answers", lambda: searched(model, shuffles)


def search(
    model: Model, train: Behaviour, check: Behaviour, *, metric: str, kept: float, seed: int
) -> Attack:
    """Look for a circuit as the study does; the finding survives when none passes."""
    outcome: Outcome = "survives"
    try:
        on = Masked(model)
        scores = discover(on, train, "eap-ig", metric=metric, seed=seed)
        circuit = smallest(
            on, train, scores, span=(kept, 2 - kept), grow=top_n, metric=metric, seed=seed
        )
        found = evaluate(
            on, check, circuit, metric=metric, controls=_CONTROLS, quick=True, seed=seed
        )
    except CircuitError as error:
        return Attack(kind="", name="", found=f"nothing: {error}", outcome=outcome)
    failed = [name for name, control in found.checks.items() if not control.passed]
    said = f"its {len(circuit)} edges fail: {', '.join(failed)}"
    if found.passes:
        said, outcome = f"a circuit of {len(circuit)} edges passes every control", "fails"
    ratio = found.faithfulness
    return Attack(
        kind="", name="", effect=ratio.mean, low=ratio.low, high=ratio.high, unit="faithfulness",
        found=said, outcome=outcome,
    )  # fmt: skip


def twin(model: Model, seed: int) -> Model:
    """The same architecture with weights drawn anew. Raises `ModelError` for a large model."""
    size = sum(x.numel() * x.element_size() for x in model.hf.parameters())
    if size > _LARGEST:
        raise ModelError(
            f"A twin would take {size / 2**30:.0f} GiB beside the model, more than the "
            f"{_LARGEST >> 30} GiB that are set aside for it."
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = type(model.hf)(copy.deepcopy(model.hf.config))
    found = open_model(
        fresh.to(device=model.device, dtype=model.dtype).eval(), tokenizer=model.tokenizer
    )
    found.name = f"{model.name}, untrained"
    return found
