"""`cutaway check`: open a model and show what was proven of it."""

from __future__ import annotations

from cutaway.cli.inputs import opened
from cutaway.cli.options import AnyModel, Device, Dtype, RemoteCode, Revision


def check(
    model: AnyModel = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    trust_remote_code: RemoteCode = False,
) -> None:
    """Open a model and prove, part by part, that every site is what its name says.

    Each identity is shown where it holds worst, with its relative error by norm and by largest
    magnitude. A model that fails one is refused with exit code 2.
    """
    from rich.console import Console
    from rich.table import Table

    loaded = opened(model, device, dtype, revision, trust_remote_code)
    print(
        f"{loaded.name}: {loaded.family}, {loaded.n_layers} layers, {loaded.n_heads} heads "
        f"({loaded.n_kv_heads} key-value), width {loaded.d_model}, vocabulary {loaded.d_vocab}, "
        f"{str(loaded.dtype).removeprefix('torch.')} on {loaded.device}"
    )
    proven = loaded.verification
    assert proven is not None
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("identity")
    table.add_column("worst at", style="bold", no_wrap=True)
    for column in ("by norm", "by magnitude", "allowed"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in proven.checks:
        numbers = (one.by_norm, one.by_magnitude, one.bound)
        mark = "✓" if one.holds else "✗"
        table.add_row(mark, one.identity, one.site, *(f"{number:.1e}" for number in numbers))
    Console().print(table)
    print(f"{len(proven.checks)} identities hold; proven in {proven.seconds:.2f} s.")
