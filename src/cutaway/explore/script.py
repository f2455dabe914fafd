"""An experiment as Python: a script that makes the same changes and prints the same numbers.

It uses nothing but the public API, and stands by itself: run it where Cutaway is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

from cutaway.explore.changes import Ablation, Change, Patch, Steering

_HEAD = '''"""An experiment saved from `cutaway explore`."""

{imports}

model = cutaway.open({opening})
prompt = {prompt}
position = {position}  # the token after which the answer is read

edits = []
'''

_TAIL = """
before = model.run(prompt).logits[0, position].float()
after = model.run(prompt, edits=edits).logits[0, position].float()
shown = {ids}

columns = ("before", "after", "change", "P before", "P after")
print(f"{{'token':<20}}" + "".join(f"{{name:>12}}" for name in columns))
for token in sorted(shown, key=lambda token: -after[token]):
    chances = [logits.softmax(dim=-1)[token] for logits in (before, after)]
    numbers = [before[token], after[token], after[token] - before[token], *chances]
    text = repr(model.tokenizer.decode([token]))
    print(f"{{text:<20}}" + "".join(f"{{float(value):12.4f}}" for value in numbers))
"""


def script(
    opening: str, prompt: str, changes: Sequence[Change], position: int, ids: Sequence[int]
) -> str:
    """The Python of an experiment.

    `opening` are the arguments of `cutaway.open` as they are written; `ids` are the tokens whose
    logits and probabilities are printed, at `position`.
    """
    steered = [change for change in changes if isinstance(change, Steering)]
    used = {"towards" if change.token is not None else "between" for change in steered}
    imports = "import cutaway"
    if used:
        imports = f"{imports}\nfrom cutaway.explore import {', '.join(sorted(used))}"
    head = _HEAD.format(imports=imports, opening=opening, prompt=written(prompt), position=position)
    lines = [line for change in changes for line in _lines(change)]
    return head + "".join(f"{line}\n" for line in lines) + _TAIL.format(ids=list(ids))


def written(text: str) -> str:
    """A text as Python writes it, without characters that cannot be seen."""
    return repr(text)


def _lines(change: Change) -> list[str]:
    where = "" if change.position is None else f", position={change.position}"
    site, whole = written(str(change.site)), written(str(change.site.whole))
    if isinstance(change, Ablation):
        if change.mode == "zero":
            return [f"edits.append(cutaway.ablate({site}{where}))"]
        return [
            f"usual = model.run(prompt, keep=[{whole}])",
            f'edits.append(cutaway.ablate({site}, "mean", over=usual{where}))',
        ]
    if isinstance(change, Patch):
        source = change.source_position
        read = "" if source is None else f", from_position={source}"
        return [
            f"other = model.run({written(change.prompt)}, keep=[{whole}])",
            f"edits.append(cutaway.replace({site}, from_=other{where}{read}))",
        ]
    return _steering(change, site, where)


def _steering(change: Steering, site: str, where: str) -> list[str]:
    lines = [f"stream = model.run(prompt, keep=[{site}])[{site}]"]
    if change.token is not None:
        token = written(change.token) if isinstance(change.token, str) else str(change.token)
        lines.append(f"direction = towards(model, stream, {token})")
    else:
        for name, text in (("plus", change.plus), ("minus", change.minus)):
            lines.append(f"{name} = model.run({written(text)}, keep=[{site}])[{site}]")
        lines.append("direction = between(stream, plus, minus)")
    strength = repr(change.strength)
    return [*lines, f"edits.append(cutaway.add({site}, {strength} * direction{where}))"]
