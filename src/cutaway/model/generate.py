"""Generation under interventions, on transformers' own `generate` and its KV cache.

Edits are connected for the whole of it, so they apply at every step. One that names positions (by
index or label) means positions of the prompt, which pass once, when the prompt is read; one that
takes its values from another run has values for the prompt only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, TextStreamer

from cutaway.errors import InputError
from cutaway.model.edits import Edits
from cutaway.model.memory import explained
from cutaway.model.taps import Tap
from cutaway.model.tokens import Tokens, pad, pad_id_of

if TYPE_CHECKING:
    from cutaway.model.model import Inputs, Model


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What was generated."""

    tokens: Tokens
    """The prompts, left-padded."""
    ids: Int[Tensor, "batch new"]
    """The new tokens, padded after the end."""
    texts: tuple[str, ...]
    """The new text of each prompt; empty without a tokenizer."""


class _Streamer(TextStreamer):
    def __init__(self, tokenizer: Any, receive: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True)
        self.receive = receive

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.receive(text)


def left_padded(tokens: Tokens, pad_id: int) -> Tokens:
    """The same prompts with the padding on the left, labels moved along."""
    if bool(tokens.mask[:, -1].all()):
        return tokens
    moved = {name: (where - tokens.first).tolist() for name, where in tokens.labels.items()}
    rows = [tokens.row_ids(row) for row in range(len(tokens))]
    return pad(rows, pad_id=pad_id, padding="left", labels=moved)


def generate(
    model: Model,
    prompt: Inputs,
    *,
    edits: Edits = (),
    taps: Sequence[Tap] = (),
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_beams: int = 1,
    seed: int = 0,
    stream: Callable[[str], None] | None = None,
) -> Generation:
    """Continue prompts, with edits and taps connected at every step.

    Args:
        model, prompt, edits, taps: as in `Model.run`; see the module docstring for the steps.
        max_new_tokens: at most so many per prompt.
        temperature: 0 takes the likeliest token; above 0 samples.
        top_k, top_p: sample among so many tokens, or those that make up this probability.
        num_beams: beam search of this width.
        seed: for sampling.
        stream: called with each piece of text as it is made (one prompt, no beams).
    """
    _check(temperature, top_k, top_p, num_beams, max_new_tokens)
    pad_id = 0 if model.tokenizer is None else pad_id_of(model.tokenizer)
    given = model.tokens(prompt, padding="left") if not isinstance(prompt, Tokens) else prompt
    tokens = model.checked(left_padded(given, pad_id))
    if stream is not None and (len(tokens) > 1 or num_beams > 1 or model.tokenizer is None):
        raise InputError("stream=… needs a single prompt, a tokenizer and no beam search.")
    if model.n_ctx is not None and tokens.ids.shape[1] + max_new_tokens > model.n_ctx:
        raise InputError(
            f"The prompt's {tokens.ids.shape[1]} tokens and {max_new_tokens} new ones exceed the "
            f"{model.n_ctx} of {model.name}'s context; shorten one of them."
        )
    sampling = {"temperature": temperature, "top_k": top_k or 0, "top_p": top_p or 1.0}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        num_beams=num_beams,
        eos_token_id=model.hf.generation_config.eos_token_id,
        bos_token_id=model.hf.generation_config.bos_token_id,
        pad_token_id=pad_id,
        **(sampling if temperature > 0 else {}),
    )
    streamer = _Streamer(model.tokenizer, stream) if stream is not None else None
    with torch.random.fork_rng(), model.connected([*model.bind(edits, tokens), *taps]):
        torch.manual_seed(seed)
        with explained(tokens, model):
            out: Tensor = model.hf.generate(
                input_ids=tokens.ids, attention_mask=tokens.mask.long(), generation_config=config,
                streamer=streamer,
            )  # fmt: skip
    ids = out[:, tokens.ids.shape[1] :]
    texts = () if model.tokenizer is None else tuple(
        model.tokenizer.batch_decode(ids, skip_special_tokens=True)
    )  # fmt: skip
    return Generation(tokens=tokens, ids=ids, texts=texts)


def _check(
    temperature: float, top_k: int | None, top_p: float | None, num_beams: int, new: int
) -> None:
    if temperature < 0:
        raise InputError(
            f"temperature must be 0 (the likeliest token) or more; found {temperature}."
        )
    if temperature == 0 and (top_k is not None or top_p is not None):
        raise InputError("top_k and top_p need sampling; give a temperature above 0.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must lie above 0 and at most 1; found {top_p}.")
    if num_beams < 1 or new < 1 or (top_k is not None and top_k < 1):
        raise InputError("num_beams, max_new_tokens and top_k must be at least 1.")
