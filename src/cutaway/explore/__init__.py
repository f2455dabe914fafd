"""The explorer: one prompt, looked into and changed in a browser, part by part.

`cutaway explore` serves it on loopback. A request is a value (`question`): a prompt, a list of
changes (`changes`) and what is looked at; the server keeps nothing about it but a cache of runs
(`runs`). An answer (`answer`) is text and numbers and the figures of `cutaway.views`, drawn by the
same client as in reports and notebooks. `script` writes the changes as Python. `desk` gives every
page its turn and stops work that nobody waits for; `server` is the only module that needs
starlette and uvicorn.
"""

from cutaway.explore.directions import between, towards

__all__ = ["between", "towards"]
