"""The server: a page, its two files, and four questions in JSON.

    GET  /api/model     what there is to look into
    POST /api/ask       a question (`question`), answered whole (`answer`)
    POST /api/tokens    how a prompt splits
    POST /api/script    the experiment as Python

Whatever cannot be done is one sentence, `{"error": …}`: 400 for what was asked, 403 and 413 from
`gate`, 409 for a request whose page has asked something newer. Nothing is logged: neither prompts
nor the token belong into a log.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from importlib.resources import files
from typing import Any

from cutaway.errors import CutawayError
from cutaway.explore.answer import Json, answer, shown_tokens
from cutaway.explore.changes import ExploreError
from cutaway.explore.desk import Desk, SupersededError
from cutaway.explore.gate import Gate, TooLargeError
from cutaway.explore.question import Fields, question
from cutaway.explore.runs import Runs, Stop, StoppedError
from cutaway.explore.script import script
from cutaway.model.model import Model
from cutaway.views.figure import asset, figure_css

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise ExploreError(
        "The explorer needs the packages starlette and uvicorn, which are not installed; "
        "pip install 'cutaway[explore]'."
    ) from error

LOOPBACK = "127.0.0.1"
"""Where the explorer listens, and nowhere else."""
_STYLES = ("templates/report.css", "templates/live.css")


class Explorer:
    """A model behind an address on loopback.

    `opening` are the arguments of `cutaway.open` as a saved script writes them. `address` holds the
    token: whoever has it may use the model, so it is for the person at this machine only.
    """

    def __init__(self, model: Model, *, opening: str, listening: socket.socket) -> None:
        if model.tokenizer is None:
            raise ExploreError(f"{model.name} has no tokenizer beside it, which prompts need.")
        self.model, self.opening = model, opening
        self.token = secrets.token_urlsafe(24)
        self.runs, self.desk = Runs(model), Desk()
        self.listening = listening
        self.port = int(listening.getsockname()[1])
        self.address = f"http://{LOOPBACK}:{self.port}/#{self.token}"
        app = Starlette(routes=_routes(self), lifespan=self._lifespan)
        self.app = Gate(app, token=self.token, port=self.port)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        yield
        self.desk.close()

    def serve(self) -> None:
        """Serve until interrupted."""
        self.server().run(sockets=[self.listening])

    def server(self) -> uvicorn.Server:
        """The server, not yet running; `should_exit` ends it."""
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, server_header=False, ws="none",
            proxy_headers=False, lifespan="on", timeout_graceful_shutdown=1,
        )  # fmt: skip
        return uvicorn.Server(config)


def listen(port: int | None) -> socket.socket:
    """A socket on loopback, at a free port unless one is named.

    Raises `ExploreError` for a port that is in use or not allowed.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port or 0))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ExploreError(
            f"Port {port} cannot be used ({error.strerror or error}); name another one with "
            "--port, or leave it out and a free one is found."
        ) from None
    return listening


def _routes(explorer: Explorer) -> list[Route]:
    page = files("cutaway.explore").joinpath("page.html").read_text("utf-8")
    script_file = files("cutaway.explore").joinpath("bundle/explorer.js").read_text("utf-8")
    own = files("cutaway.explore").joinpath("explorer.css").read_text("utf-8")
    style = "\n".join([figure_css(), *map(asset, _STYLES), own])

    def fixed(text: str, kind: str) -> Callable[[Request], Any]:
        async def give(request: Request) -> Response:
            return Response(text, media_type=kind)

        return give

    async def start(request: Request) -> Response:
        return HTMLResponse(page)

    async def about(request: Request) -> Response:
        return JSONResponse(_about(explorer.model))

    return [
        Route("/", start),
        Route("/explorer.js", fixed(script_file, "text/javascript")),
        Route("/explorer.css", fixed(style, "text/css")),
        Route("/api/model", about),
        Route("/api/ask", _asked(explorer, "ask", _ask), methods=["POST"]),
        Route("/api/tokens", _asked(explorer, "tokens", _tokens), methods=["POST"]),
        Route("/api/script", _asked(explorer, "script", _script), methods=["POST"]),
    ]


def _about(model: Model) -> Json:
    neurons = "mlp_post" not in model.missing()
    return {
        "name": model.name,
        "family": model.family,
        "layers": model.n_layers,
        "heads": model.n_heads,
        "neurons": model.axis_sizes(0)["neuron"] if neurons else 0,
        "context": model.n_ctx,
    }


Work = Callable[[Explorer, Any, Stop], Json]


def _asked(explorer: Explorer, kind: str, work: Work) -> Callable[[Request], Any]:
    """A handler that reads JSON and waits for the work's turn."""

    async def handle(request: Request) -> Response:
        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        try:
            data = _read(await request.body())
            page = f"{kind} {Fields(data, 'The request').text('page')[:64]}"
            found = await explorer.desk.do(page, lambda stop: work(explorer, data, stop), gone)
        except (SupersededError, StoppedError, ClientDisconnect) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        except TooLargeError as error:
            return JSONResponse({"error": str(error)}, status_code=413)
        except CutawayError as error:
            return JSONResponse({"error": _inert(str(error))}, status_code=400)
        return JSONResponse(found)

    return handle


def _read(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ExploreError("The request is not JSON.") from None


def _inert(sentence: str) -> str:
    """An error may quote what was typed; half characters cannot be sent, and pages are short."""
    clean = sentence.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean if len(clean) <= 500 else f"{clean[:240]} … {clean[-240:]}"


def _ask(explorer: Explorer, data: Any, stop: Stop) -> Json:
    return answer(explorer.runs, question(explorer.model, data), stop)


def _tokens(explorer: Explorer, data: Any, stop: Stop) -> Json:
    tokens = explorer.runs.tokens(Fields(data, "The request").text("prompt"))
    return {"tokens": shown_tokens(explorer.model, tokens)}


def _script(explorer: Explorer, data: Any, stop: Stop) -> Json:
    asked = question(explorer.model, data)
    found = answer(explorer.runs, asked, stop)
    ids = [each["id"] for each in found["next"]]
    text = script(explorer.opening, asked.prompt, asked.changes, found["position"], ids)
    return {"script": text}
