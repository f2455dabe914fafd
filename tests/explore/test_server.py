"""The server: who is let in, what is refused, and that everybody gets their turn."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest
from serving import OTHER, PROMPT, Served, Slow, served

from cutaway.explore.changes import ExploreError
from cutaway.explore.server import listen
from cutaway.model import Model, ablate


def error(answer: tuple[int, dict[str, str]], status: int = 400) -> str:
    """The one sentence of a refusal."""
    assert answer[0] == status
    assert list(answer[1]) == ["error"]
    sentence = answer[1]["error"]
    assert "\n" not in sentence
    assert len(sentence) <= 500
    return sentence


# ── who is let in ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["ask", "tokens", "script"])
@pytest.mark.parametrize("token", ["", "wrong", "é"])
def test_a_wrong_token_is_refused(explorer: Served, path: str, token: str) -> None:
    answer = explorer.post(path, {"page": "a", "prompt": "Hi"}, X_Cutaway_Token=token)
    assert "token is missing or wrong" in error(answer, 403)


def test_the_model_is_not_told_without_the_token(explorer: Served) -> None:
    assert explorer.send("GET", "/api/model")[0] == 200
    assert explorer.send("GET", "/api/model", X_Cutaway_Token="x")[0] == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"]
)
def test_a_foreign_origin_is_refused(explorer: Served, origin: str) -> None:
    answer = explorer.post("ask", {"page": "a", "prompt": "Hi"}, Origin=origin)
    assert "own pages only" in error(answer, 403)
    assert explorer.send("GET", "/", Origin=origin)[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:{port}"])
def test_a_foreign_host_is_refused(explorer: Served, host: str) -> None:
    named = host.format(port=explorer.explorer.port)
    assert explorer.send("GET", "/", Host=named)[0] == 403
    assert "loopback" in error(explorer.post("ask", {"prompt": "Hi"}, Host=named), 403)


def test_its_own_page_is_let_in_under_both_names(explorer: Served) -> None:
    for name in ("127.0.0.1", "localhost"):
        address = f"{name}:{explorer.explorer.port}"
        data = {"page": "a", "prompt": "Hi"}
        assert explorer.post("tokens", data, Host=address, Origin=f"http://{address}")[0] == 200


def test_every_answer_forbids_what_a_page_does_not_need(explorer: Served) -> None:
    for path in ("/", "/explorer.js", "/api/model", "/nothing"):
        _, _, headers = explorer.send("GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_page_itself_holds_no_token(explorer: Served) -> None:
    for path in ("/", "/explorer.js", "/explorer.css"):
        assert explorer.explorer.token.encode() not in explorer.send("GET", path)[1]


def test_it_listens_on_loopback_only() -> None:
    listening = listen(None)
    assert listening.getsockname()[0] == "127.0.0.1"
    port = listening.getsockname()[1]
    with pytest.raises(ExploreError, match=rf"Port {port} cannot be used .* name another one"):
        listen(port)
    listening.close()


# ── what is refused ──────────────────────────────────────────────────────────────────────────

ABLATE = {"do": "ablate", "site": "z.2.1"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": ""}, "at least one character"),
        ({"prompt": None}, "needs a text 'prompt'; found nothing"),
        ({"prompt": "half \ud800"}, "U+D800 alone"),
        ({"prompt": "word " * 400}, "more than the 128 of septet's context"),
        ({"position": 15}, "numbered 0 to 14"),
        ({"position": -1}, "numbered 0 to 14"),
        ({"position": "last"}, "'position' as a whole number; found a text"),
        ({"target": 10**9}, "numbered 0 to 1504"),
        ({"head": [9, 0]}, "nearest is 'pattern.4'"),
        ({"head": [0, -1]}, "numbered from 0"),
        ({"neurons": 7}, "nearest is 'mlp_post.4'"),
        ({"show": "both"}, "edited, plain, difference"),
        ({"changes": "z.2.1"}, "'changes' as a list"),
        ({"changes": [ABLATE] * 33}, "more than the 32"),
        ({"changes": [{"do": "erase", "site": "z.2.1"}]}, "ablate, patch or steer; found 'erase'"),
        ({"changes": [{**ABLATE, "site": "z.2.9"}]}, "no site 'z.2.9'"),
        ({"changes": [{**ABLATE, "site": "logits"}]}, "cannot be ablated or patched"),
        ({"changes": [{**ABLATE, "position": 99}]}, "Position 99 does not exist"),
        ({"changes": [{**ABLATE, "mode": "random"}]}, "zero or to its mean"),
        (
            {"changes": [{"do": "patch", "site": "z.2.1", "prompt": "Hi"}]},
            "15 tokens and the other one 3, so they do not line up",
        ),
        (
            {"changes": [{"do": "steer", "site": "resid_post.2", "token": "two words",
                          "strength": 1}]},
            "where one is needed",
        ),
        (
            {"changes": [{"do": "steer", "site": "z.2.1", "token": " a", "strength": 1}]},
            "cannot be steered",
        ),
        (
            {"changes": [{"do": "steer", "site": "resid_post.2", "token": " a", "strength": 1e9}]},
            "between −1000 and 1000",
        ),
        (
            {"changes": [{"do": "steer", "site": "resid_post.2", "plus": "Hi", "minus": "Hi",
                          "strength": 1}]},
            "choose prompts that differ",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    explorer: Served, fields: dict[str, object], said: str
) -> None:
    answer = explorer.post("ask", {"page": "a", "prompt": PROMPT, **fields})
    assert said in error(answer)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused(explorer: Served, body: bytes) -> None:
    status, said, _ = explorer.send("POST", "/api/ask", body)
    assert "JSON" in error((status, json.loads(said)))


def test_a_body_too_large_is_refused(explorer: Served) -> None:
    answer = explorer.post("ask", {"page": "a", "prompt": "x" * 300_000})
    assert "larger than 256 kB" in error(answer, 413)
    connection = http.client.HTTPConnection("127.0.0.1", explorer.explorer.port, timeout=20)
    token = {"X-Cutaway-Token": explorer.explorer.token}
    pieces = (b"x" * 10_000 for _ in range(30))
    with closing(connection):
        connection.request("POST", "/api/ask", pieces, token, encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    "prompt", ["<script>alert(1)</script>", "\u202eabc", "👩‍👧", "x" * 100_000, "\0", "a\r\nb"]
)
def test_hostile_prompts_are_answered_or_refused(explorer: Served, prompt: str) -> None:
    status, found = explorer.post("ask", {"page": "a", "prompt": prompt})
    assert status in (200, 400), found
    if status == 200:
        assert all(len(text) <= 40 for text, _ in found["tokens"])
        assert not any("\u202e" in text for text, _ in found["tokens"])


# ── turns ────────────────────────────────────────────────────────────────────────────────────


def test_twenty_clients_lose_nothing(explorer: Served, model: Model) -> None:
    """Each gets the answer to its own question, as a run by itself gives it."""
    places = [(layer, head) for layer in range(5) for head in range(4)]

    def client(place: tuple[int, int]) -> list[float]:
        layer, head = place
        site, seen = f"z.{layer}.{head}", []
        for prompt in (PROMPT, OTHER):
            changes = [{"do": "ablate", "site": site}]
            found = explorer.ask(page=f"page {site}", prompt=prompt, changes=changes)
            best = found["next"][0]
            logits = model.run(prompt, edits=ablate(site)).logits[0, -1]
            assert int(logits.argmax()) == best["id"]
            seen.append(abs(float(logits.max()) - best["after"]["logit"]))
        return seen

    with ThreadPoolExecutor(20) as clients:
        missed = [each for found in clients.map(client, places) for each in found]
    assert len(missed) == 40
    assert max(missed) < 1e-3


def test_a_newer_question_of_a_page_takes_the_older_one_s_place(
    explorer: Served, model: Model
) -> None:
    with Slow(model) as slow, ThreadPoolExecutor(3) as clients:
        ask = {"page": "one", "prompt": "A first prompt that takes long"}
        first = clients.submit(explorer.post, "ask", ask)
        time.sleep(0.15)
        other = clients.submit(explorer.post, "ask", {**ask, "page": "another"})
        time.sleep(0.05)
        newer = clients.submit(explorer.post, "ask", {**ask, "prompt": "A newer prompt"})
        assert "newer request" in error(first.result(), 409)
        assert other.result()[0] == 200
        assert newer.result()[0] == 200
    # two whole questions of two passes each, and what the first got done before it was stopped
    assert slow.layers <= 4 * model.n_layers + 4


def test_a_client_that_goes_away_stops_its_work(explorer: Served, model: Model) -> None:
    with Slow(model) as slow:
        body = json.dumps({"page": "gone", "prompt": "A prompt that nobody waits for"}).encode()
        gone = socket.create_connection(("127.0.0.1", explorer.explorer.port))
        gone.sendall(
            b"POST /api/ask HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Cutaway-Token: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s"
            % (explorer.explorer.port, explorer.explorer.token.encode(), len(body), body)
        )
        while not slow.layers:
            time.sleep(0.01)
        gone.close()
        time.sleep(0.5)
        assert slow.layers < model.n_layers
    assert explorer.ask()["position"] == 14


def test_the_end_of_the_server_stops_its_work(model: Model) -> None:
    with Slow(model, 1.0) as slow:
        with served(model) as own, ThreadPoolExecutor(1) as client:
            waiting = client.submit(own.send, "POST", "/api/ask", b'{"page": "a", "prompt": "Hi"}')
            while not slow.layers:
                time.sleep(0.01)
            own.server.should_exit = True
            with suppress(http.client.HTTPException, OSError):
                waiting.result()
        assert slow.layers <= 3


def test_work_that_waits_is_dropped_when_its_page_goes(explorer: Served, model: Model) -> None:
    with Slow(model) as slow:
        first = threading.Thread(
            target=explorer.ask, kwargs={"page": "stays", "prompt": "A prompt that is waited for"}
        )
        first.start()
        while not slow.layers:
            time.sleep(0.01)
        waiting = http.client.HTTPConnection("127.0.0.1", explorer.explorer.port)
        token = {"X-Cutaway-Token": explorer.explorer.token}
        said = json.dumps({"page": "goes", "prompt": "Another prompt that is dropped"})
        waiting.request("POST", "/api/ask", said, token)
        time.sleep(0.1)
        waiting.close()
        first.join()
        time.sleep(0.2)
    assert slow.layers == 2 * model.n_layers
