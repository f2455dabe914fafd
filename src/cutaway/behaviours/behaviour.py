"""A behaviour: contrastive pairs as tokens, with answers, named positions and a metric.

The clean prompt of each pair shows the behaviour; the corrupt prompt takes out or swaps what the
behaviour needs and keeps everything else in place, token by token. So a label names one position
in both, and what an activation at that position does can be measured by moving it from one run
to the other (Meng et al. 2022; Wang et al. 2022).

Behaviours come from a built-in generator (`behaviours.build`), from files (`from_csv`,
`from_json`), from texts (`from_pairs`) or from token ids (`from_tokens`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cutaway.behaviours import storage
from cutaway.behaviours.align import Mark, align, stack
from cutaway.behaviours.check import check
from cutaway.behaviours.problems import Problems
from cutaway.behaviours.provenance import version
from cutaway.behaviours.read import Sheet, read_csv, read_json
from cutaway.behaviours.texts import pairs_of_texts, rows_of_tokens
from cutaway.errors import BehaviourError
from cutaway.model.tokens import Padding, Tokens, token_strings

Split = Literal["all", "train", "held-out"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Behaviour:
    """Examples of one behaviour, tokenised; each is a clean and a corrupt prompt."""

    name: str
    """Short name, such as "ioi"."""
    description: str
    """One sentence that says what the model should do."""
    clean: Tokens
    """The prompts that show the behaviour; labels include at least "end", the last token."""
    corrupt: Tokens
    """The prompts without it: same shape, mask and label positions as `clean`."""
    clean_texts: tuple[str, ...]
    """The clean prompts as text."""
    corrupt_texts: tuple[str, ...]
    """The corrupt prompts as text."""
    answers: tuple[tuple[int, ...], ...]
    """Token ids that are correct after each clean prompt, at least one."""
    wrong_answers: tuple[tuple[int, ...], ...]
    """Token ids that are wrong after each clean prompt, at least one, none of them an answer."""
    variations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What varies: for each column (template, order, …) one value per example."""
    held_out: tuple[bool, ...]
    """Per example, whether it is kept for the final check."""
    metric: str = "logit_diff"
    """The metric to study it by: a key of `METRICS`."""
    token_texts: tuple[tuple[str, ...], ...]
    """Each clean prompt's tokens as strings, without padding."""
    corrupt_token_texts: tuple[tuple[str, ...], ...]
    """Each corrupt prompt's tokens as strings, without padding."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Where the examples came from: source, version, seed, n, tokenizer (of the whole set)."""

    def __post_init__(self) -> None:
        check(self)

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        return (
            f"Behaviour({self.name!r}, n={len(self)}, held_out={sum(self.held_out)}, "
            f"labels={'/'.join(self.labels)}, metric={self.metric!r}, "
            f"first={self.clean_texts[0]!r} → {_brief(self.answers[0])} "
            f"not {_brief(self.wrong_answers[0])})"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of positions that every prompt has, "end" among them."""
        return tuple(self.clean.labels)

    @property
    def has_held_out(self) -> bool:
        """Whether there are both examples to train on and held-out ones."""
        return any(self.held_out) and not all(self.held_out)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of all that decides results: tokens, labels, answers, metric, split."""
        digest = hashlib.sha256(json.dumps(self._record(), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().long().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def rows(self, index: Sequence[int] | slice | Tensor) -> Behaviour:
        """The chosen examples in the given order; at least one, by index, slice or mask."""
        listed = list(index) if not isinstance(index, slice | Tensor) else index
        try:
            chosen: list[int] = torch.arange(len(self))[listed].tolist() if listed != [] else []
        except (IndexError, TypeError) as error:
            raise BehaviourError(
                f"The behaviour {self.name!r} has examples 0 to {len(self) - 1}; "
                f"found the selection {index!r}."
            ) from error
        if not chosen:
            raise BehaviourError(
                f"The selection {index!r} has no example of the behaviour {self.name!r}, which "
                f"has {len(self)}; choose at least one."
            )
        return replace(
            self,
            clean=self.clean.rows(chosen),
            corrupt=self.corrupt.rows(chosen),
            variations={
                column: tuple(values[row] for row in chosen)
                for column, values in self.variations.items()
            },
            **{name: tuple(getattr(self, name)[row] for row in chosen) for name in storage.LISTED},
        )

    def split(self, which: Split) -> Behaviour:
        """The examples to find things on ("train"), those to check on ("held-out"), or "all"."""
        if which not in ("all", "train", "held-out"):
            raise BehaviourError(f"split must be 'all', 'train' or 'held-out'; found {which!r}.")
        if which == "all":
            return self
        wanted = which == "held-out"
        chosen = [row for row, kept in enumerate(self.held_out) if kept == wanted]
        if not chosen:
            raise BehaviourError(
                f"The behaviour {self.name!r} has no {which} example among its {len(self)}; "
                f"mark some with a held_out column, or call hold_out(share=0.2)."
            )
        return self.rows(chosen)

    def hold_out(self, share: float = 0.2, *, seed: int = 0) -> Behaviour:
        """The same examples with a random share marked as held out, at least one on each side."""
        if not 0 < share < 1:
            raise BehaviourError(f"hold_out needs a share between 0 and 1; found {share}.")
        if len(self) < 2:
            raise BehaviourError(
                f"Some pairs of {self.name!r} are held out, and it has {len(self)}; "
                "give at least 2."
            )
        count = min(max(round(share * len(self)), 1), len(self) - 1)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        kept = set(order[:count].tolist())
        return replace(self, held_out=tuple(row in kept for row in range(len(self))))

    def end_logits(
        self, logits: Float[Tensor, "batch position vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """A run's logits at the label "end", where metrics read them."""
        rows: Int[Tensor, " batch"] = torch.arange(len(self), device=logits.device)
        return logits[rows, self.clean.labels["end"].to(logits.device)]

    def save(self, path: str | Path) -> Path:
        """Write `tokens.safetensors` and `behaviour.json` into the directory `path`.

        A directory that holds another behaviour is refused.
        """
        extra = {"provenance": dict(self.provenance), "fingerprint": self.fingerprint}
        storage.write(Path(path), self._tensors(), {**self._record(), **extra})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Behaviour:
        """Read what `save` wrote; files that do not belong together are refused."""
        fields, fingerprint = storage.read(Path(path))
        loaded = cls(**fields)
        if loaded.fingerprint != fingerprint:
            raise BehaviourError(
                f"The behaviour in {path} has changed since it was saved (fingerprint "
                f"{loaded.fingerprint}, saved as {fingerprint}); save it again."
            )
        return loaded

    def _tensors(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for side, tokens in (("clean", self.clean), ("corrupt", self.corrupt)):
            found |= {f"{side}.ids": tokens.ids, f"{side}.mask": tokens.mask}
            found |= {f"{side}.label.{name}": where for name, where in tokens.labels.items()}
        return found

    def _record(self) -> dict[str, Any]:
        plain = {
            key: getattr(self, key) for key in ("name", "description", "metric", *storage.LISTED)
        }
        return {**plain, "variations": dict(self.variations)}

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        tokenizer: Any,
        *,
        columns: Mapping[str, str] | None = None,
        name: str | None = None,
        metric: str = "logit_diff",
        bos: bool | None = None,
        padding: Padding = "right",
    ) -> Behaviour:
        """Pairs from a CSV file; `cutaway.behaviours.read` describes its columns.

        `columns={"corrupt": "corrupted_hard"}` says which column serves as which; `bos` is as in
        `model.tokens.encode`. Raises `ProblemsError` with everything that is wrong.
        """
        problems = Problems(source=str(path))
        sheet = read_csv(Path(path), problems, columns)
        sheet = replace(sheet, name=name or sheet.name, metric=metric)
        return cls._from_sheet(sheet, tokenizer, problems, bos, padding)

    @classmethod
    def from_json(
        cls,
        path: str | Path,
        tokenizer: Any,
        *,
        name: str | None = None,
        metric: str | None = None,
        bos: bool | None = None,
        padding: Padding = "right",
    ) -> Behaviour:
        """Pairs from a JSON file; `cutaway.behaviours.read` describes its keys.

        `name` and `metric` win over the file's own. Raises `ProblemsError` with everything that is
        wrong.
        """
        problems = Problems(source=str(path))
        sheet = read_json(Path(path), problems)
        sheet = replace(sheet, name=name or sheet.name, metric=metric or sheet.metric)
        return cls._from_sheet(sheet, tokenizer, problems, bos, padding)

    @classmethod
    def from_pairs(
        cls,
        clean: Sequence[str],
        corrupt: Sequence[str],
        answers: Sequence[str | Sequence[str]],
        wrong_answers: Sequence[str | Sequence[str]],
        tokenizer: Any,
        *,
        labels: Mapping[str, Sequence[Mark]] | None = None,
        variations: Mapping[str, Sequence[str]] | None = None,
        held_out: Sequence[bool] | None = None,
        name: str = "pairs",
        description: str = "Pairs of prompts.",
        metric: str = "logit_diff",
        bos: bool | None = None,
        padding: Padding = "right",
    ) -> Behaviour:
        """Pairs from texts; every argument has one entry per pair.

        A label's entry is a word of the clean prompt ("John", or "John#2" for its second
        occurrence), a token index, or a (start, stop) span of characters. Raises `ProblemsError`
        with everything that is wrong.
        """
        problems = Problems(source=f"The behaviour {name!r}")
        pairs = pairs_of_texts(
            clean, corrupt, answers, wrong_answers, labels or {}, variations or {}, held_out
        )
        sheet = Sheet(
            pairs=pairs,
            name=name,
            description=description,
            metric=metric,
            provenance={"source": "pairs"},
        )
        return cls._from_sheet(sheet, tokenizer, problems, bos, padding)

    @classmethod
    def from_tokens(
        cls,
        clean: Tokens | Tensor | Sequence[Sequence[int]],
        corrupt: Tokens | Tensor | Sequence[Sequence[int]],
        *,
        answers: Sequence[int | Sequence[int]],
        wrong_answers: Sequence[int | Sequence[int]],
        labels: Mapping[str, Sequence[int]] | None = None,
        variations: Mapping[str, Sequence[str]] | None = None,
        held_out: Sequence[bool] | None = None,
        tokenizer: Any = None,
        name: str = "tokens",
        description: str = "Pairs of token sequences.",
        metric: str = "logit_diff",
        padding: Padding = "right",
    ) -> Behaviour:
        """Pairs from token ids, taken as they are: nothing is added in front.

        `labels` count from each row's own first token. A tokenizer is only used to show the tokens
        as text; without one they are shown as numbers.
        """
        batches = [rows_of_tokens(side, labels or {}, padding) for side in (clean, corrupt)]
        shown = [
            tuple(
                tuple(token_strings(tokenizer, ids) if tokenizer else map(str, ids))
                for ids in map(batch.row_ids, range(len(batch)))
            )
            for batch in batches
        ]
        texts = [tuple(("" if tokenizer else " ").join(row) for row in side) for side in shown]
        return cls(
            name=name,
            description=description,
            clean=batches[0],
            corrupt=batches[1],
            clean_texts=texts[0],
            corrupt_texts=texts[1],
            answers=tuple((a,) if isinstance(a, int) else tuple(a) for a in answers),
            wrong_answers=tuple((a,) if isinstance(a, int) else tuple(a) for a in wrong_answers),
            variations={column: tuple(values) for column, values in (variations or {}).items()},
            held_out=tuple(held_out) if held_out is not None else (False,) * len(batches[0]),
            metric=metric,
            token_texts=shown[0],
            corrupt_token_texts=shown[1],
            provenance={"source": "tokens", "version": version()},
        )

    @classmethod
    def _from_sheet(
        cls, sheet: Sheet, tokenizer: Any, problems: Problems, bos: bool | None, padding: Padding
    ) -> Behaviour:
        aligned = align(sheet.pairs, tokenizer, problems, bos=bos)
        problems.raise_if_any()
        fields = stack(aligned, tokenizer, padding)
        fields["provenance"] = {**sheet.provenance, **fields["provenance"]}
        return cls(
            name=sheet.name,
            description=sheet.description,
            metric=sheet.metric or "logit_diff",
            **fields,
        )


def _brief(ids: Sequence[int]) -> str:
    """A set of token ids, cut after three."""
    shown = ", ".join(map(str, ids[:3]))
    return f"{shown}, … ({len(ids)})" if len(ids) > 3 else shown
