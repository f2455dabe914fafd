"""Hypotheses: which parts compute a behaviour, and what each of them is about, as values.

A hypothesis (Chan et al. 2022) is an interpretation graph. Its nodes stand for parts of the model,
its edges say who reads whom, and each node says what of the prompt it is about:

- a `Node` is some parts (heads `a2.h1`, MLPs `m0`, the embeddings `input`) with the feature of the
  prompt that, so it is claimed, is all that matters of what they write: any other prompt that
  agrees on it (see `features`) would do in its place;
- `reads` says which nodes matter to what its parts read: to the heads' q, k and v inputs, and to
  the MLPs' input. What is not named there does not matter to it, so it is claimed. About a kind of
  input that is not in `reads` nothing is claimed: it is whatever the stand-in prompt makes it;
- the hypothesis says which nodes matter to the logits. Nothing else does.

    Hypothesis(
        name="induction", description="A head that looks for what follows the last token.",
        nodes=(
            Node(name="previous", parts=("a0.h1",), agrees="token at A1 & place of B1"),
            Node(
                name="copying", parts=("a1.h0",), agrees="token at B1",
                reads={"k": ("previous",)},
            ),
        ),
        logits=("copying",),
    )

Parts of one node see what one another write. A node that several others read is one claim, but each
reads a stand-in of its own (the graph is treeified, as in the paper).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from cutaway.circuits.features import ANYTHING, Case, Feature, Function, feature
from cutaway.circuits.graph import CircuitError

Kind = Literal["q", "k", "v", "mlp"]
"""What parts read: a head's query, key and value input, and an MLP's input. In latent attention the
rotary key that heads share belongs to k."""

REST = "everything else"
"""The claim that what is not named does not matter."""
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Node:
    """Some parts of the model, and what they are about."""

    name: str
    """What they do, in a word or two."""
    parts: tuple[str, ...]
    """Heads `a2.h1`, MLPs `m0`, the embeddings `input`."""
    agrees: Feature | Function | str | Callable[[Case], Hashable]
    """What a prompt has to share to stand in for this one here: a feature, its text, or a plain
    function of a `Case`."""
    reads: Mapping[Kind, tuple[str, ...]] = field(default_factory=dict[Kind, tuple[str, ...]])
    """The nodes that matter to each kind of input that something is claimed about."""

    def __post_init__(self) -> None:
        if isinstance(self.parts, str) or not self.parts:
            raise CircuitError(
                f"The node {self.name!r} needs a tuple of at least one part, such as ('a0.h1',); "
                f"found {self.parts!r}."
            )
        if self.name == REST or not self.name:
            raise CircuitError(f"A node cannot be called {self.name!r}; choose another name.")
        for kind, names in self.reads.items():
            if kind not in get_args(Kind) or isinstance(names, str):
                raise CircuitError(
                    f"The node {self.name!r} reads {{{kind!r}: {names!r}}}; give a tuple of node "
                    f"names for some of {', '.join(get_args(Kind))}."
                )
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "agrees", feature(self.agrees))
        object.__setattr__(self, "reads", {kind: tuple(ns) for kind, ns in self.reads.items()})

    @property
    def feature(self) -> Feature:
        """What it agrees on, as a feature."""
        return feature(self.agrees)


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A claim about how a behaviour is computed."""

    name: str
    """Its name."""
    description: str
    """The claim in a sentence."""
    nodes: tuple[Node, ...]
    """Everything that matters, each once."""
    logits: tuple[str, ...]
    """The names of the nodes that matter to the logits."""
    within: Feature | Function | str | Callable[[Case], Hashable] = ANYTHING
    """The claim is made among prompts that share this: every stand-in does, in the baseline too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "logits", tuple(self.logits))
        object.__setattr__(self, "within", feature(self.within))
        names = [node.name for node in self.nodes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise CircuitError(f"Two nodes are called {twice!r}; give each node its own name.")
        _check_names(self)
        self.below(tuple(names))  # refuses a circle wherever it is
        unread = set(names) - self.below(self.logits)
        if unread:
            raise CircuitError(
                f"No path leads from the logits to the node {min(unread)!r}, so nothing would be "
                "tested of it; let a node read it, or leave it out."
            )

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.description}"]
        if str(self.within) != ANYTHING:
            lines.append(f"  among prompts with the same {self.within}")
        lines.append(f"  logits read {_listed(self.logits)}")
        for node in self.nodes:
            lines.append(f"  {node.name} ({', '.join(node.parts)}): {node.agrees}")
            lines += [f"    {kind} reads {_listed(names)}" for kind, names in node.reads.items()]
        return "\n".join(lines)

    def node(self, name: str) -> Node:
        """The node of a name. Raises `CircuitError` when there is none."""
        found = next((node for node in self.nodes if node.name == name), None)
        if found is None:
            listed = ", ".join(node.name for node in self.nodes) or "none"
            raise CircuitError(f"There is no node {name!r} in {self.name!r}; its nodes: {listed}.")
        return found

    def below(self, names: tuple[str, ...]) -> frozenset[str]:
        """These nodes and all that they read, directly or not."""
        found = set[str]()
        _below(self, names, (), found)
        return frozenset(found)

    def without(self, name: str) -> Hypothesis:
        """The same without a node, and without what only it had read."""
        self.node(name)

        def kept(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(each for each in names if each != name)

        nodes = [
            replace(node, reads={kind: kept(names) for kind, names in node.reads.items()})
            for node in self.nodes
            if node.name != name
        ]
        reads = {node.name: node for node in nodes}
        reached, ahead = set[str](), list(kept(self.logits))
        while ahead:
            here = ahead.pop()
            if here not in reached:
                reached.add(here)
                ahead += [each for names in reads[here].reads.values() for each in names]
        left = tuple(node for node in nodes if node.name in reached)
        return replace(self, nodes=left, logits=kept(self.logits))

    def record(self) -> dict[str, Any]:
        """What `save` writes."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "description": self.description,
            "within": str(self.within),
            "logits": list(self.logits),
            "nodes": [
                {
                    "name": node.name,
                    "parts": list(node.parts),
                    "agrees": str(node.agrees),
                    "reads": {kind: list(names) for kind, names in node.reads.items()},
                }
                for node in self.nodes
            ],
        }

    @classmethod
    def of_record(
        cls,
        record: Mapping[str, Any],
        functions: Mapping[str, Callable[[Case], Hashable]] | None = None,
    ) -> Hypothesis:
        """What `record` gave. Raises `CircuitError` for anything else."""
        try:
            if record["format"] != _FORMAT:
                raise CircuitError(
                    f"This hypothesis has the format {record['format']!r}; this version of Cutaway "
                    f"reads {_FORMAT}."
                )
            nodes = tuple(
                Node(
                    name=one["name"],
                    parts=tuple(one["parts"]),
                    agrees=feature(one["agrees"], functions),
                    reads={kind: tuple(names) for kind, names in one["reads"].items()},
                )
                for one in record["nodes"]
            )
            return cls(
                name=record["name"],
                description=record["description"],
                nodes=nodes,
                logits=tuple(record["logits"]),
                within=feature(record["within"], functions),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise CircuitError(
                f"This is not a saved hypothesis ({type(error).__name__}: {error}); give a file "
                "that save wrote."
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write the hypothesis as JSON; functions are written by name, which each has to have."""
        target = Path(path)
        _check_functions(self)
        text = json.dumps(self.record(), indent=1, ensure_ascii=False) + "\n"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CircuitError(
                f"The hypothesis cannot be saved as {target} ({error.strerror or error}); choose a "
                "place that can be written."
            ) from error
        return target

    @classmethod
    def load(
        cls,
        path: str | Path,
        functions: Mapping[str, Callable[[Case], Hashable]] | None = None,
    ) -> Hypothesis:
        """Read what `save` wrote; `functions` are those that its features name."""
        try:
            record: Any = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CircuitError(
                f"{path} is not a saved hypothesis ({error}); give a file that save wrote."
            ) from error
        return cls.of_record(record, functions)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def _check_names(hypothesis: Hypothesis) -> None:
    """Everything that is read exists, and is read once by each reader."""
    readers: list[tuple[str, tuple[str, ...]]] = [("the logits", hypothesis.logits)]
    for node in hypothesis.nodes:
        readers += [(f"{node.name}'s {kind}", names) for kind, names in node.reads.items()]
    known = [node.name for node in hypothesis.nodes]
    for reader, names in readers:
        for name in names:
            if name not in known:
                raise CircuitError(
                    f"In {hypothesis.name!r} {reader} read {name!r}, which is no node of it; its "
                    f"nodes are {_listed(tuple(known))}."
                )
            if names.count(name) > 1:
                raise CircuitError(
                    f"In {hypothesis.name!r} {reader} read {name!r} twice; name it once."
                )


def _check_functions(hypothesis: Hypothesis) -> None:
    """Every function can be found again by its name."""
    features = [feature(hypothesis.within), *(node.feature for node in hypothesis.nodes)]
    known: dict[str, Function] = {}
    for term in (term for one in features for term in one.terms if isinstance(term, Function)):
        if term.name == "<lambda>" or known.setdefault(term.name, term) != term:
            raise CircuitError(
                f"The functions of {hypothesis.name!r} are saved by name, and {term.name!r} is not "
                "the name of one alone; wrap each as Function('a name', …)."
            )


def _below(
    hypothesis: Hypothesis, names: tuple[str, ...], above: tuple[str, ...], done: set[str]
) -> None:
    """Add every node that is reached from these, depth first; a cycle is refused."""
    for name in names:
        if name in above:
            circle = " → ".join((*above[above.index(name) :], name))
            raise CircuitError(
                f"The hypothesis {hypothesis.name!r} goes in a circle ({circle}); a part can only "
                "read what earlier ones wrote."
            )
        if name in done:
            continue
        for kind in hypothesis.node(name).reads.values():
            _below(hypothesis, kind, (*above, name), done)
        done.add(name)
