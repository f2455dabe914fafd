"""`cutaway behaviours` and `cutaway models`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def behaviours(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="BEHAVIOUR",
            help="Tell more about this one: example prompts and what can be varied.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List the built-in behaviours, or show one with examples and variations."""
    from rich.console import Console
    from rich.table import Table

    from cutaway.behaviours import listing
    from cutaway.cli.inputs import check_named

    if name is not None:
        check_named(name, None)
        _one(next(entry for entry in listing() if entry.name == name))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("behaviour", style="bold", no_wrap=True)
    table.add_column("what the model should do")
    for entry in listing():
        table.add_row(entry.name, entry.description)
    Console().print(table)
    print("\nStudy one with: cutaway study BEHAVIOUR. Your own pairs: --prompts FILE.")


def _one(entry: Any) -> None:
    import random

    from cutaway.behaviours.builtin import GENERATORS

    print(f"{entry.name}: {entry.description}")
    if entry.paper:
        print(f"After {entry.paper}.")
    print("\nExamples")
    for example in GENERATORS[entry.name](random.Random(0), 3, vocabulary=lambda _text: True):
        right, wrong = _few(example.answers), _few(example.wrong_answers)
        print(f"  clean    {example.clean.text}\n  corrupt  {example.corrupt.text}")
        print(f"  answer   {right} and not {wrong}")
        labels = ", ".join(name for _, name in example.clean.pieces if name)
        print(f"  labels   {labels}\n")
    print("Variations (--vary KEY=VALUE, the default first)")
    for key, values in entry.variations.items():
        print(f"  {key}: {_few(values, 4)}")


def _few(words: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(repr(word) for word in words[:most])
    return shown if len(words) <= most else f"{shown}, … ({len(words)} in all)"


def models() -> None:
    """List the models that ship with Cutaway, and how to name any other."""
    import json

    from rich.console import Console
    from rich.table import Table

    from cutaway import gallery

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("model", "family", "layers", "heads", "width", "vocabulary", "size"):
        table.add_column(column, style="bold" if column == "model" else "", no_wrap=True)
    for name in gallery.models():
        directory = gallery.path(name)
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        size = sum(file.stat().st_size for file in directory.glob("*.safetensors")) / 2**20
        sizes = (_first(config, *keys) for keys in _SIZES)
        label = f"{name} (default)" if name == gallery.DEFAULT else name
        table.add_row(label, config.get("model_type", ""), *sizes, f"{size:.1f} MiB")
    Console().print(table)
    print(
        "\nAny other decoder: --model NAME on the Hugging Face hub (gpt2), or --model DIR with\n"
        "config.json and safetensors weights. `cutaway check MODEL` opens it and proves its sites."
    )


_SIZES = (
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_embd", "hidden_size"),
    ("vocab_size",),
)


def _first(config: dict[str, Any], *keys: str) -> str:
    return next((str(config[key]) for key in keys if key in config), "")
