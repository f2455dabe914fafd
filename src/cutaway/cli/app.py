"""The commands of `cutaway`, put together."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated

import typer

from cutaway.cli.boundary import Group
from cutaway.cli.circuit import circuit
from cutaway.cli.compare import compare
from cutaway.cli.explore import explore
from cutaway.cli.generate import generate
from cutaway.cli.ground_truth import ground_truth
from cutaway.cli.heads import heads
from cutaway.cli.lens import lens
from cutaway.cli.listing import behaviours, models
from cutaway.cli.look import check
from cutaway.cli.mechanism import mechanism
from cutaway.cli.study import study
from cutaway.cli.sweep import sweep

app = typer.Typer(
    name="cutaway",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from cutaway import __version__

        print(f"cutaway {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Begin with [bold]cutaway study ioi[/bold]; every command has its own "
    "[bold]--help[/bold] with examples."
)
def cutaway(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Open a language model and take one behaviour from prompts to evidence.

    From "this language model does X" to "this circuit does X, and here is the evidence".
    """


def _command(run: Callable[..., None], *examples: str, name: str | None = None) -> None:
    """Add a command; its docstring is its help, its examples come after the options."""
    paragraphs = cleandoc(run.__doc__ or "").split("\n\n")
    app.command(
        name,
        help="\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs),
        epilog="\n".join(["[bold]Examples[/bold]", *(f"  {line}" for line in examples)]),
    )(run)


_command(
    study,
    "cutaway study ioi",
    "cutaway study ioi --model gpt2 --n 50",
    "cutaway study greater-than --seed 1 --out my-study",
    "cutaway study ioi --vary order=ABBA --vary corruption=ABC",
    "cutaway study ioi --hypotheses mine.toml --stage hypotheses",
    "cutaway study ioi --again report",
    "cutaway study --prompts pairs.csv --model path/to/model",
)
_command(
    compare,
    "cutaway study compare my-study cutaway-studies/ioi-gpt2",
    "cutaway study compare before after --out change.html",
    name="study compare",
)
_command(behaviours, "cutaway behaviours", "cutaway behaviours ioi")
_command(models, "cutaway models")
_command(check, "cutaway check", "cutaway check gpt2", "cutaway check path/to/model")
_command(
    lens,
    "cutaway lens ioi",
    "cutaway lens --text 'When Mary and John went to the shop, John gave a drink to'",
    "cutaway lens ioi --lens tuned --save-lens tuned.safetensors",
    "cutaway lens ioi --through tuned.safetensors --plot lens.svg --save readings.nc",
)
_command(
    heads,
    "cutaway heads ioi",
    "cutaway heads ioi --confirm --plot attention.svg --save heads",
    "cutaway heads ioi --value-or-pointer 2.2 --value-or-pointer 2.4",
    "cutaway heads --prompts pairs.csv --model gpt2",
)
_command(
    sweep,
    "cutaway sweep ioi",
    "cutaway sweep ioi --site resid_pre --by layer,position --mode noise --plot stream.svg",
    "cutaway sweep ioi --site q --by layer,head,position --metric logit_diff --metric kl --explain",
    "cutaway sweep ioi --site mlp_post --by layer,neuron --part 3.17 --part 3.40 --mode zero",
    "cutaway sweep --prompts pairs.csv --model gpt2 --site mlp_out --by layer --out mlps.nc",
)
_command(
    circuit,
    "cutaway circuit ioi",
    "cutaway circuit ioi --edges smallest --method eap-ig --method exact --quick",
    "cutaway circuit greater-than --edges 2% --by score --format dot --format attribution",
    "cutaway circuit --prompts pairs.csv --model gpt2 --held-out 0.3 --out my-circuits",
    "cutaway circuit ioi --compare earlier/eap-ig.circuit.json",
)
_command(
    mechanism,
    "cutaway mechanism induction",
    "cutaway mechanism recall capitals --strength 4 --plot recall.svg",
    "cutaway mechanism memorised phone-number",
    "cutaway mechanism memorised --text 'It was the best of times' --other texts.txt --model gpt2",
    "cutaway mechanism reuse capitals acronyms ioi --out reuse.nc",
)
_command(explore, "cutaway explore", "cutaway explore --model gpt2 --port 8765 --no-browser")
_command(
    generate,
    "cutaway generate 'Once upon a time'",
    "cutaway generate 'Once upon a time' --ablate mlp_out.0 --max-new-tokens 40",
    "cutaway generate 'When Mary and John' --ablate head_out.1.3 --ablate head_out.2.0",
)
_command(
    ground_truth,
    "cutaway ground-truth",
    "cutaway ground-truth --methods eap,eap-ig --models constructed,sort-trained",
    "cutaway ground-truth --nulls 100 --out rows.json --markdown docs/ground-truth.md",
)


def main() -> None:
    """The entry point of the `cutaway` command."""
    app()
