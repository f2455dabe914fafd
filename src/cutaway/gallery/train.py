"""Trains the shipped model from scratch: `python -m cutaway.gallery.train --seed 0 --out DIR`.

A small GPT-2 reads the text of `cutaway.gallery.text` and learns to predict every next token; no
loss is weighted towards a behaviour and no weight is set by hand.

1. The batch of a step is written from (seed, step) alone, so that a resumed run reads what an
   uninterrupted one would have.
2. The first steps read nothing but a few random words repeated over and over, in short rows: the
   model then learns to copy at once, which by itself, in mixed text, takes many times longer.
3. Position embeddings start as sinusoids (Vaswani et al. 2017) and are then trained like the rest.
4. Documents, each after the BOS token, are packed into rows of `context` tokens. One row in ten
   loses its first BOS, so that prompts without it work as well.
5. The last steps read text in which held-out names are given things too, though never by the other
   named person, so that copying does not depend on which names were ever indirect objects.
6. Muon for the layers' matrices and AdamW for the rest, with warm-up and two cycles of cosine
   decay, on the mean cross-entropy.
7. Every `save_every` steps the whole state goes to DIR/checkpoint; starting again resumes from it.
   At the end the model, its tokenizer and its measured figures are written to DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from cutaway.errors import CutawayError
from cutaway.gallery import text
from cutaway.gallery.card import card
from cutaway.gallery.evaluate import Measured, measure_all, table
from cutaway.gallery.tokenizer import build


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what comes out."""

    seed: int = 0
    """Of the initial weights and the text."""
    steps: int = 6800
    """Updates."""
    tokens: int = 1024
    """Tokens in a batch."""
    context: int = 128
    """Tokens in a row, and the longest prompt that the model can read."""
    primer: int = 600
    """Steps at the beginning that read nothing but repetitions, in rows of a quarter."""
    finish: int = 4800
    """The step from which `text.FINISH` is read, with a second cycle of the learning rate."""
    short: float = 0.7
    """Until this fraction of the steps before `finish`, rows are half as long as the context."""
    layers: int = 5
    """Layers."""
    heads: int = 5
    """Attention heads in each layer."""
    width: int = 160
    """The residual stream's width."""
    spread: float = 0.08
    """The standard deviation of the initial weights: about 1 / √width."""
    rate: float = 6e-3
    """The highest learning rate."""
    warmup: int = 100
    """Steps until the learning rate is at its highest."""
    optimiser: str = "muon"
    """Of the layers' matrices: "muon" or "adamw"."""
    decay: float = 0.05
    """AdamW's weight decay, on matrices only."""
    save_every: int = 250
    """Steps between checkpoints."""

    def width_at(self, step: int) -> int:
        """How long this step's rows are: a quarter of the context, then half, then all of it."""
        if step < self.primer:
            return self.context // 4
        return self.context // 2 if step < self.short * self.finish else self.context

    def weights_at(self, step: int) -> Mapping[str, float]:
        """The proportions in which kinds of text are read."""
        if step < self.primer:
            return text.PRIMER
        return text.WEIGHTS if step < self.finish else text.FINISH

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to a fiftieth; again from half the rate at the end."""
        late = step >= self.finish
        begin, end = (self.finish, self.steps) if late else (0, self.finish)
        rate, at = (self.rate / 2 if late else self.rate), step - begin
        if at < self.warmup:
            return rate * (at + 1) / self.warmup
        done = (at - self.warmup) / max(1, end - begin - self.warmup)
        return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def initial(recipe: Recipe, tokenizer: Any) -> GPT2LMHeadModel:
    """A GPT-2 with random weights; only its position embeddings start as sinusoids."""
    torch.manual_seed(recipe.seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=recipe.context,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        initializer_range=recipe.spread,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=True,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(_sinusoids(recipe) * recipe.spread * 2**0.5)
    return model


def _sinusoids(recipe: Recipe) -> Tensor:
    """Sines and cosines of the position, [context, width], with wavelengths from 6 to 1,250."""
    steps = torch.arange(recipe.width // 2) / (recipe.width // 2)
    angles = torch.arange(recipe.context)[:, None] * 200.0**-steps
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def batch(recipe: Recipe, tokenizer: Any, step: int) -> Tensor:
    """The step's token ids, [rows, context]."""
    rng = random.Random(f"{recipe.seed}/{step}")
    width = recipe.width_at(step)
    height = recipe.tokens // width
    weights = recipe.weights_at(step)
    rows: list[list[int]] = []
    pending: list[list[int]] = []
    for _ in range(height):
        row: list[int] = []
        while len(row) < width:
            if not pending:
                pending = tokenizer(text.documents(rng, 4 * height, weights))["input_ids"]
            row += pending.pop()
        skip = int(rng.random() < 0.1 and len(row) > width)
        rows.append(row[skip : skip + width])
    return torch.tensor(rows)


def optimisers(recipe: Recipe, model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW for embeddings, biases and norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and ".h." in name]
    rest = [p for name, p in named if not (p.ndim == 2 and ".h." in name)]
    adam = torch.optim.AdamW(rest, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0)
    if recipe.optimiser == "adamw":
        adam.add_param_group({"params": matrices, "weight_decay": recipe.decay})
        return [adam]
    muon = torch.optim.Muon(
        matrices, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw"
    )
    return [adam, muon]


def save_state(
    where: Path,
    recipe: Recipe,
    step: int,
    seconds: float,
    model: Any,
    optimisers: list[torch.optim.Optimizer],
) -> None:
    """The weights, the optimiser's moments and the step, as safetensors and JSON."""
    where.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight:{name}": p.detach() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        for optimiser in optimisers:
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"{key}:{name}"] = value
    save_file(tensors, where / "state.safetensors.new")
    (where / "state.safetensors.new").replace(where / "state.safetensors")
    state = {"step": step, "seconds": seconds, "recipe": asdict(recipe)}
    (where / "state.json").write_text(json.dumps(state, indent=1))


def load_state(
    where: Path, recipe: Recipe, model: Any, optimisers: list[torch.optim.Optimizer]
) -> tuple[int, float]:
    """The step and the seconds so far; refuses the checkpoint of another recipe."""
    if not (where / "state.json").exists():
        return 0, 0.0
    state = json.loads((where / "state.json").read_text())
    if state["recipe"] != asdict(recipe):
        raise CutawayError(
            f"The checkpoint in {where} was made with other settings than these; "
            f"give the same settings to resume it, or another --out."
        )
    tensors = load_file(where / "state.safetensors")
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"weight:{name}"])
        owner = next(o for o in optimisers for g in o.param_groups if _holds(g, parameter))
        owner.state[parameter] = {
            key.split(":")[0]: value
            for key, value in tensors.items()
            if key.split(":")[1] == name and not key.startswith("weight:")
        }
    return int(state["step"]), float(state["seconds"])


def _holds(group: dict[str, Any], parameter: Tensor) -> bool:
    return any(parameter is one for one in group["params"])


def train(recipe: Recipe, out: Path, console: Console) -> tuple[GPT2LMHeadModel, Any, float]:
    """The trained model, its tokenizer, and the seconds that it took."""
    tokenizer = build(recipe.context)
    model = initial(recipe, tokenizer)
    steppers = optimisers(recipe, model)
    begin, spent = load_state(out / "checkpoint", recipe, model, steppers)
    started = time.monotonic() - spent
    console.print(f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens known")
    with Progress(console=console) as progress:
        task = progress.add_task("training", total=recipe.steps, completed=begin)
        for step in range(begin, recipe.steps):
            ids = batch(recipe, tokenizer, step)
            for group in (group for stepper in steppers for group in stepper.param_groups):
                group["lr"] = recipe.learning_rate(step)
            logits = model(input_ids=ids).logits
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for stepper in steppers:
                stepper.step()
            progress.update(task, advance=1, description=f"loss {loss.item():.3f}")
            if (step + 1) % recipe.save_every == 0:
                seconds = time.monotonic() - started
                save_state(out / "checkpoint", recipe, step + 1, seconds, model, steppers)
                progress.print(f"step {step + 1}: loss {loss.item():.3f}, {seconds:.0f} s")
                progress.print(table(measure_all(model, tokenizer, n=60, splits=["held-out"])))
    return model.eval(), tokenizer, time.monotonic() - started


def finish(
    out: Path, recipe: Recipe, model: GPT2LMHeadModel, tokenizer: Any, seconds: float
) -> list[Measured]:
    """Write the model, its tokenizer and its card; gives the figures on the card."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # transformers 5 writes its own name for this class; the older name is read by every version.
    settings = json.loads((out / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (out / "model.safetensors").chmod(0o644)
    measured = measure_all(model, tokenizer, n=250)
    tokens = recipe.steps * recipe.tokens
    facts = {
        "Architecture": f"GPT-2, {recipe.layers} layers of {recipe.heads} heads, width "
        f"{recipe.width}, context {recipe.context}, no dropout",
        "Parameters": f"{model.num_parameters():,}, float32",
        "Vocabulary": f"{len(tokenizer):,} tokens",
        "Training text": f"{tokens / 1e6:.1f} million tokens, none of them read twice",
        "Seed": str(recipe.seed),
        "Cost": f"{seconds / 60:.0f} minutes; CPU threads: {torch.get_num_threads()}",
        "Versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    text_of = card(title=out.name, recipe=asdict(recipe), facts=facts, measured=measured)
    (out / "README.md").write_text(text_of, encoding="utf-8")
    return measured


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cutaway.gallery.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the model")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    out, threads = given.pop("out"), given.pop("threads")
    if threads:
        torch.set_num_threads(threads)
    console = Console()
    recipe = Recipe(**given)
    model, tokenizer, seconds = train(recipe, out, console)
    measured = finish(out, recipe, model, tokenizer, seconds)
    console.print(table(measured))


if __name__ == "__main__":
    main()
