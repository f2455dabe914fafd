"""`cutaway explore` as a process: an address, one line at the end, one sentence when it cannot."""

import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cutaway.cli.app import app
from cutaway.explore.server import Explorer, listen
from cutaway.model import size
from cutaway.model.tiny import tiny

RUN = "import sys; from cutaway.cli import main; sys.argv = ['cutaway', *sys.argv[1:]]; main()"


def started(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "explore", "--no-browser", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_it_prints_its_address_and_ends_in_one_line() -> None:
    process = started()
    assert process.stdout is not None
    first = process.stdout.readline()
    found = re.fullmatch(r"septet is open at (http://127\.0\.0\.1:\d+/)#([\w-]{32,})\n", first)
    assert found, first
    assert process.stdout.readline() == "Ctrl-C ends it.\n"
    with urllib.request.urlopen(found[1]) as page:
        assert b"<title>Explorer" in page.read()
    asked = urllib.request.Request(f"{found[1]}api/model", headers={"X-Cutaway-Token": found[2]})
    with urllib.request.urlopen(asked) as answer:
        assert b'"septet"' in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(f"{found[1]}api/model")
    refused.value.close()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert out.strip() == "The explorer has ended."
    assert "Traceback" not in err
    assert process.returncode == 0


def test_it_opens_the_browser_at_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def interrupted(explorer: Explorer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(Explorer, "serve", interrupted)
    result = CliRunner().invoke(app, ["explore"])
    assert result.exit_code == 0
    (address,) = opened
    assert address in result.stdout
    assert CliRunner().invoke(app, ["explore", "--no-browser"]).exit_code == 0
    assert opened == [address]


def test_a_port_in_use_is_one_sentence() -> None:
    with listen(None) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["explore", "--no-browser", "--port", port])
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"Error: Port {port} cannot be used \(Address already in use\); [^\n]+\.\n", result.stderr
    )


def test_a_model_too_large_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(size, "free_memory", lambda device: 1000)
    result = CliRunner().invoke(app, ["explore", "--no-browser", "--model", str(tmp_path)])
    assert result.exit_code == 2
    assert "does not fit: its weights take" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_model_without_a_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    result = CliRunner().invoke(app, ["explore", "--no-browser", "--model", str(tmp_path)])
    assert result.exit_code == 2
    assert "has no tokenizer beside it" in result.stderr


def test_without_its_packages_one_sentence_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from cutaway.errors import CutawayError\n"
        "try: import cutaway.explore.server\n"
        "except CutawayError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == (
        "The explorer needs the packages starlette and uvicorn, which are not installed; "
        "pip install 'cutaway[explore]'."
    )
