"""`cutaway lens`: what the model would answer after each layer, of a behaviour or of a text."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cutaway.cli import options
from cutaway.cli.files import check_picture, check_writable
from cutaway.cli.inputs import check_named, chosen_behaviour, opened, study_name, variations

if TYPE_CHECKING:
    from pathlib import Path

    from cutaway.behaviours import Behaviour
    from cutaway.model import Model
    from cutaway.observe import Lens, Translators
    from cutaway.views.figure import Figure


class Kind(StrEnum):
    """The lenses there are."""

    logit = "logit"
    tuned = "tuned"
    jacobian = "jacobian"


Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="Read this text, token by token, instead of the behaviour's prompts.",
    ),
]
Which = Annotated[
    Kind,
    typer.Option(
        "--lens",
        help="The logit lens, or one that is first made from the behaviour's prompts and saved.",
    ),
]
Made = Annotated[
    str | None,
    typer.Option("--through", metavar="FILE", help="Read through a lens that was saved earlier."),
]
SaveLens = Annotated[
    str | None,
    typer.Option(
        "--save-lens",
        metavar="FILE",
        help="Where a lens that is made is saved (safetensors). Left out: "
        "cutaway-lenses/BEHAVIOUR-MODEL-LENS.safetensors.",
    ),
]
Steps = Annotated[
    int, typer.Option("--steps", min=0, metavar="N", help="For how long a tuned lens is trained.")
]
Save = Annotated[
    str | None,
    typer.Option("--save", metavar="FILE", help="Save the readings of every example (netCDF)."),
]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE.svg", help="Draw the logit difference by layer."),
]
SiteNames = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        metavar="SITE",
        help="Read this instead of the stream after every layer: a kind (resid_mid, attn_out, "
        "mlp_out, head_out) or one site (mlp_out.2); may be given several times.",
    ),
]
Columns = Annotated[
    int,
    typer.Option("--last", min=1, metavar="N", help="Print so many of a text's last tokens."),
]


def lens(
    behaviour: options.BehaviourName = None,
    model: options.ModelName = None,
    prompts: options.Prompts = None,
    text: Text = None,
    lens: Which = Kind.logit,
    through: Made = None,
    site: SiteNames = None,
    steps: Steps = 200,
    save_lens: SaveLens = None,
    last: Columns = 8,
    n: options.Count = None,
    seed: options.Seed = 0,
    vary: options.Vary = None,
    plot: Plot = None,
    save: Save = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    revision: options.Revision = None,
    trust_remote_code: options.RemoteCode = False,
) -> None:
    """Read the stream of every layer as if it were the last.

    Of a behaviour, prints after each layer the correct answer's logit difference, probability and
    rank at the end of the prompts, and after which layer the answer stays. Of a --text, the
    likeliest next token at each of its tokens.

    --lens tuned trains a tuned lens on the behaviour's prompts, --lens jacobian measures a Jacobian
    lens there; either is saved, and its KL from the model is printed beside the logit lens's.
    """
    _check_asked(behaviour, prompts, text, lens, through, save_lens)
    variations(vary)
    target = _lens_path(save_lens, behaviour, prompts, model, lens)
    _check_files(None if lens is Kind.logit else target, plot, save)
    loaded = opened(model, device, dtype, revision, trust_remote_code)
    rows: Behaviour | None = None
    if behaviour is not None or prompts is not None:
        rows = chosen_behaviour(behaviour, prompts, loaded, n=n, usual=100, seed=seed, vary=vary)
    read = rows if text is None else _of_text(loaded, text)
    assert read is not None
    carried = _translators(loaded, rows, lens, through, steps, seed)
    if carried is not None and through is None:
        _print_kl(carried)
        print(f"Saved lens: {carried.save(target)}")
    found = _read(loaded, read, carried, site, every=text is not None)
    if text is None:
        _print_behaviour(loaded, read, found)
    else:
        _print_text(read, found, last)
    if plot is not None:
        print(f"Drawn: {_picture(found).save(plot)}")
    if save is not None:
        print(f"Saved: {found.save(save)}")


# ── the work ─────────────────────────────────────────────────────────────────────────────────


def _translators(
    model: Model, rows: Behaviour | None, kind: Kind, through: str | None, steps: int, seed: int
) -> Translators | None:
    """The lens that was asked for: read from a file, made from the prompts, or none."""
    from cutaway.cli.bars import Bars
    from cutaway.observe import Translators, jacobian_lens, tuned_lens

    if through is not None:
        return Translators.load(through)
    if kind is Kind.logit or rows is None:
        return None
    with Bars() as bars:
        bars.started("lens", f"{kind} lens")
        if kind is Kind.tuned:
            return tuned_lens(model, rows, steps=steps, seed=seed, progress=bars.advanced)
        return jacobian_lens(model, rows, progress=bars.advanced)


def _read(
    model: Model, rows: Behaviour, through: Translators | None, sites: list[str] | None, *,
    every: bool,
) -> Lens:  # fmt: skip
    from cutaway.cli.bars import Bars
    from cutaway.observe import logit_lens

    positions = list(range(int(rows.clean.lengths[0]))) if every else None
    with Bars() as bars:
        bars.started("reading", "reading the layers")
        return logit_lens(
            model, rows, sites=sites, positions=positions, through=through,
            progress=bars.advanced,
        )  # fmt: skip


def _of_text(model: Model, text: str) -> Behaviour:
    """One prompt whose answer is what the model says, and whose wrong answer comes second."""
    from cutaway.behaviours import Behaviour
    from cutaway.errors import InputError

    if model.tokenizer is None:
        raise InputError(f"{model.name} has no tokenizer beside it, which --text needs.")
    tokens = model.tokens(text)
    first, second = model.run(tokens).last_logits[0].topk(2).indices.tolist()
    ids = tokens.row_ids(0)
    return Behaviour.from_tokens(
        [ids], [ids], answers=[first], wrong_answers=[second], tokenizer=model.tokenizer,
        name="text",
    )  # fmt: skip


# ── what is printed and drawn ────────────────────────────────────────────────────────────────


def _print_kl(made: Translators) -> None:
    table = made.kl.transpose("layer", "lens").to_pandas()
    print("KL from the model, in nats, on prompts that the lens was not made from:")
    print(table.to_string(float_format="{:.3f}".format))


def _print_behaviour(model: Model, rows: Behaviour, found: Lens) -> None:
    """At `end`, layer by layer."""
    import numpy as np
    import pandas as pd

    at = {"position": "end"}
    ends = found.interval().sel(at)
    table = pd.DataFrame(
        {
            "after": found.logit_diff["layer"].to_numpy(),
            "logit diff": ends["mean"].to_numpy(),
            "low": ends["low"].to_numpy(),
            "high": ends["high"].to_numpy(),
            "probability": found.probability.sel(at).mean("example").to_numpy(),
            "median rank": found.rank.sel(at).median("example").to_numpy(),
        }
    )
    print(f"{found.provenance['configuration']['method']} of {model.name} at the end of "
          f"{len(rows)} prompts of {rows.name}")  # fmt: skip
    small = {"median rank": "{:.0f}".format, "probability": "{:.3f}".format}
    print(table.to_string(index=False, float_format="{:+.3f}".format, formatters=small))
    first = int(np.ceil(found.saturation.sel(at).median().item()))
    print(f"From {table['after'][first]} on, the top token is the model's own (median).")


def _print_text(rows: Behaviour, found: Lens, last: int) -> None:
    """The likeliest token after each of the last tokens, layer by layer."""
    import pandas as pd

    shown = found.top_text.isel(example=0, position=slice(-last, None))
    words = [repr(word) for word in rows.token_texts[0][-last:]]
    columns = [f"{place}: {word}" for place, word in zip(shown["position"].to_numpy(), words,
                                                        strict=True)]  # fmt: skip
    cells = [[repr(str(cell)) for cell in line] for line in shown.to_numpy()]
    table = pd.DataFrame(cells, index=pd.Index(shown["layer"].to_numpy()), columns=columns)
    print(table.to_string())
    chance = found.probability.isel(example=0, position=-1)
    steps = ", ".join(f"{float(each):.2f}" for each in chance)
    answer = str(found.top_text.isel(example=0, layer=-1, position=-1).item())
    print(f"The probability of {answer!r} at the end, reading by reading: {steps}")


def _picture(found: Lens) -> Figure:
    from cutaway.views.heatmap import lens as draw

    data = found.interval()
    return draw(
        data["mean"].to_numpy(),
        [str(name) for name in data["layer"].to_numpy()],
        [str(name) for name in data["position"].to_numpy()],
        shows="Mean logit of the correct answers less that of the wrong ones, layer by layer.",
        lows=data["low"].to_numpy(), highs=data["high"].to_numpy(),
    )  # fmt: skip


# ── refused before the work ──────────────────────────────────────────────────────────────────


def _check_asked(
    behaviour: str | None, prompts: str | None, text: str | None, kind: Kind,
    through: str | None, save_lens: str | None,
) -> None:  # fmt: skip
    """Refuse what does not go together."""
    from pathlib import Path

    from cutaway.errors import InputError

    if text is None or behaviour is not None or prompts is not None:
        check_named(behaviour, prompts)
    elif kind is not Kind.logit and through is None:
        raise InputError(
            f"A {kind} lens is made from prompts; name a behaviour beside --text, or a saved lens "
            "with --through FILE."
        )
    if through is not None and kind is not Kind.logit:
        raise InputError("--through reads a lens that is there, and --lens makes one; give one.")
    if through is not None and not Path(through).is_file():
        raise InputError(f"There is no file {through!r}; --through takes a lens that was saved.")
    if save_lens is not None and kind is Kind.logit:
        raise InputError("The logit lens has nothing to save; --save-lens goes with --lens tuned.")


def _lens_path(
    given: str | None, behaviour: str | None, prompts: str | None, model: str | None, kind: Kind
) -> Path:
    """Where a lens goes."""
    from pathlib import Path

    if given is not None:
        return Path(given)
    name = f"{study_name(behaviour, prompts, model)}-{kind}.safetensors"
    return Path("cutaway-lenses") / name


def _check_files(made: Path | None, plot: str | None, save: str | None) -> None:
    """Refuse files that could not be written, or hold something else."""
    from pathlib import Path

    from cutaway.observe import Lens, Translators

    check_picture(plot)
    if made is not None:
        check_writable(made, "--save-lens")
        if made.exists():
            Translators.load(made)
    if save is not None:
        check_writable(Path(save), "--save")
        if Path(save).exists():
            Lens.load(save)
