"""The command line: `cutaway study`, `behaviours`, `models`, `check`, `sweep`, `circuit`,
`generate`, `ground-truth`.

Commands import torch, transformers and the rest of Cutaway when they run, so that `--help` answers
at once. Results go to standard output, progress and errors to standard error.
"""

from cutaway.cli.app import app, main

__all__ = ["app", "main"]
