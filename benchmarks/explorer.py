"""How quickly the explorer answers: one page's edits, and twenty pages at once.

    python benchmarks/explorer.py [--threads 2] [--rounds 3] [--clients 20]

`cutaway explore` runs as a process of its own, as it does for a person, on the shipped model; each
question is a whole one, over HTTP, with everything that a page shows, and each edit is one that was
not asked before. At once, every client asks its own edits one after another and waits for each
answer; an answer is lost when it does not come, is an error, or is not the one that the same
question gets when it is asked alone.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from table import Measurement, say, show

RUN = "import sys; sys.argv = ['cutaway', 'explore', '--no-browser']; "
RUN += "from cutaway.cli import main; main()"
PROMPT = "When Mary and John went to the store, John gave a drink to"
LAYERS, HEADS, TOKENS = 5, 5, 15


@contextmanager
def explorer(threads: int) -> Iterator[tuple[int, str]]:
    """The port and the token of a running explorer."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().split()[-1])
        assert address.port is not None
        yield address.port, address.fragment
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def ask(
    connection: http.client.HTTPConnection, token: str, page: str, changes: list[dict[str, Any]]
) -> tuple[float, dict[str, Any] | None]:
    """Seconds of one question, and its answer; None where there is none."""
    said = json.dumps({"page": page, "prompt": PROMPT, "changes": changes})
    start = time.perf_counter()
    connection.request("POST", "/api/ask", said, {"X-Cutaway-Token": token})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    return time.perf_counter() - start, found if answer.status == 200 else None


def edits() -> Iterator[dict[str, Any]]:
    """Edits that differ: every head, everywhere and then at each position."""
    places = itertools.product([None, *range(TOKENS)], range(LAYERS), range(HEADS))
    for position, layer, head in places:
        yield {"do": "ablate", "site": f"z.{layer}.{head}", "position": position}


def alone(port: int, token: str, count: int) -> tuple[float, list[float]]:
    """Seconds of the first answer, and of so many edits after it."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        first, _ = ask(connection, token, "alone", [])
        seconds: list[float] = []
        for edit in itertools.islice(edits(), count):
            took, found = ask(connection, token, "alone", [edit])
            assert found is not None
            seconds.append(took)
    return first, seconds


def together(port: int, token: str, clients: int, count: int) -> tuple[list[float], int]:
    """Seconds of every answer of so many clients at once, and how many were lost."""
    asked = {
        number: [
            [edit, {"do": "steer", "site": "resid_post.3", "token": 640, "strength": number / 10}]
            for edit in itertools.islice(edits(), count)
        ]
        for number in range(clients)
    }

    def client(number: int) -> list[tuple[float, dict[str, Any] | None]]:
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            return [ask(connection, token, f"page {number}", each) for each in asked[number]]

    with ThreadPoolExecutor(clients) as pool:
        found = dict(zip(asked, pool.map(client, asked), strict=True))
    lost = 0
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for number, answers in found.items():
            for changes, (_, answer) in zip(asked[number], answers, strict=True):
                _, reference = ask(connection, token, "alone", changes)
                assert reference is not None
                lost += answer is None or answer["next"] != reference["next"]
    return [seconds for answers in found.values() for seconds, _ in answers], lost


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description="How quickly the explorer answers.")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--clients", type=int, default=20)
    given = arguments.parse_args()
    count = given.rounds * LAYERS * HEADS
    with explorer(given.threads) as (port, token):
        first, seconds = alone(port, token, count)
        many, lost = together(port, token, given.clients, given.rounds * 4)
    detail: dict[str, object] = {"threads": given.threads, "edits": count}
    ordered = sorted(seconds)
    crowd = {"clients": given.clients, "answers": len(many)}
    measured = [
        Measurement(name="the first answer", value=1e3 * first, unit="ms", detail=detail),
        Measurement(name="an edit, median", value=1e3 * statistics.median(seconds), unit="ms",
                    bar=300, detail=detail),
        Measurement(name="an edit, slowest of twenty", unit="ms", bar=300, detail=detail,
                    value=1e3 * ordered[int(0.95 * (len(ordered) - 1))]),
        Measurement(name=f"{given.clients} clients at once: an edit, median", unit="ms",
                    value=1e3 * statistics.median(many), detail=crowd),
        Measurement(name=f"{given.clients} clients at once: the slowest edit", unit="ms",
                    value=1e3 * max(many), detail=crowd),
        Measurement(name=f"{given.clients} clients at once: answers lost", value=lost, unit="",
                    bar=0, detail=crowd),
    ]  # fmt: skip
    show([say(each) for each in measured])


if __name__ == "__main__":
    main()
