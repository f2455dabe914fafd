"""`cutaway generate`: continue a prompt, with parts of the model taken away."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cutaway.cli.options import Device, Dtype, ModelName, RemoteCode, Revision, Seed, opened


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")],
    model: ModelName = None,
    ablate: Annotated[
        list[str] | None,
        typer.Option(
            "--ablate",
            metavar="SITE",
            help="Take this site away at every step (head_out.1.3, mlp_out.0); may be given "
            "several times.",
        ),
    ] = None,
    mode: Annotated[
        Literal["zero", "mean"],
        typer.Option(
            "--mode", help="What an ablated site becomes: nothing, or its mean over this prompt."
        ),
    ] = "zero",
    max_new_tokens: Annotated[
        int,
        typer.Option("--max-new-tokens", min=1, metavar="N", help="At most so many."),
    ] = 20,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            min=0.0,
            metavar="T",
            help="0: the likeliest token; above 0: sample.",
        ),
    ] = 0.0,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Continue a prompt, as the model is and with sites ablated.

    With --ablate, the unchanged model's continuation is printed beside the changed one.
    """
    loaded = opened(model, device, dtype, revision, trust_remote_code)

    from cutaway.model import Edit
    from cutaway.model import ablate as ablation

    sites = [loaded.check_site(site) for site in ablate or []]
    over = None
    if mode == "mean" and sites:
        over = loaded.run(prompt, keep=[site.whole for site in sites])
    edits = [ablation(site, mode, over=over) for site in sites]

    def continued(changes: list[Edit]) -> str:
        made = loaded.generate(
            prompt, edits=changes, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
        )
        return made.texts[0]

    if edits:
        print(f"unchanged: {prompt}{continued([])}")
        print(f"without {', '.join(map(str, sites))}: {prompt}{continued(edits)}")
    else:
        print(f"{prompt}{continued([])}")
