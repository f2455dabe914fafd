"""`cutaway explore`: look into one prompt in a browser, change parts, and see what follows."""

from __future__ import annotations

from typing import Annotated

import typer

from cutaway.cli.inputs import opened
from cutaway.cli.options import Device, Dtype, ModelName, RemoteCode, Revision

Port = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=1,
        max=65535,
        metavar="PORT",
        help="Where to listen on this machine. Left out: a free port.",
    ),
]
NoBrowser = Annotated[
    bool, typer.Option("--no-browser", help="Only print the address; open no browser.")
]


def explore(
    model: ModelName = None,
    port: Port = None,
    no_browser: NoBrowser = False,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Look into a prompt in the browser: ablate, patch and steer parts, and see the answer change.

    The page is served to this machine alone, at an address with a token that changes every time.
    Ctrl-C ends it.
    """
    from cutaway.explore.server import Explorer, listen

    with listen(port) as listening:
        loaded = opened(model, device, dtype, revision, trust_remote_code)
        opening = _opening(model, device, dtype, revision, trust_remote_code)
        explorer = Explorer(loaded, opening=opening, listening=listening)
        print(f"{loaded.name} is open at {explorer.address}\nCtrl-C ends it.", flush=True)
        if not no_browser:
            import webbrowser

            webbrowser.open(explorer.address)
        try:
            explorer.serve()
        except KeyboardInterrupt:
            print("\nThe explorer has ended.")


def _opening(
    model: str | None,
    device: str | None,
    dtype: str | None,
    revision: str | None,
    trust_remote_code: bool,
) -> str:
    """The arguments of `cutaway.open` as a saved script writes them."""
    from pathlib import Path

    from cutaway import gallery

    name = model or gallery.DEFAULT
    if name not in gallery.models() and Path(name).is_dir():
        name = str(Path(name).resolve())
    options: dict[str, object] = {
        "device": device, "dtype": dtype, "revision": revision,
        "trust_remote_code": trust_remote_code or None,
    }  # fmt: skip
    given = [f"{key}={value!r}" for key, value in options.items() if value is not None]
    return ", ".join([repr(name), *given])
