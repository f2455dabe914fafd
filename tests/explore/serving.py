"""An explorer running in a thread of the tests, and what asks it."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from cutaway.explore.server import Explorer, listen
from cutaway.model import Model

PROMPT = "When Mary and John went to the store, John gave a drink to"
OTHER = "When Tom and Kate went to the store, Kate gave a drink to"


@dataclass(frozen=True)
class Served:
    """A running explorer."""

    explorer: Explorer
    server: uvicorn.Server

    @property
    def own(self) -> str:
        return f"http://127.0.0.1:{self.explorer.port}"

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request with the right token; `headers` add to it, with - for _."""
        connection = http.client.HTTPConnection("127.0.0.1", self.explorer.port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"X-Cutaway-Token": self.explorer.token, **given}
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def post(self, path: str, data: object, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        status, body, _ = self.send("POST", f"/api/{path}", json.dumps(data).encode(), **headers)
        return status, json.loads(body)

    def ask(self, *, page: str = "a page", prompt: str = PROMPT, **fields: object) -> Any:
        """The answer to a question that can be answered."""
        status, found = self.post("ask", {"page": page, "prompt": prompt, **fields})
        assert status == 200, found
        return found


@contextlib.contextmanager
def served(model: Model) -> Iterator[Served]:
    explorer = Explorer(model, opening='"septet"', listening=listen(None))
    server = explorer.server()
    thread = threading.Thread(target=lambda: server.run(sockets=[explorer.listening]), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Served(explorer, server)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@dataclass
class Slow:
    """Makes each layer take a while, and counts them."""

    model: Model
    seconds: float = 0.1
    layers: int = 0
    _handles: list[Any] = field(default_factory=list)

    def __enter__(self) -> "Slow":
        def hook(module: Any, args: Any) -> None:
            self.layers += 1
            time.sleep(self.seconds)

        self._handles = [
            layer.block.register_forward_pre_hook(hook) for layer in self.model.anatomy.layers
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
