"""The documents are true: examples run, links lead somewhere, generated pages are current."""

import contextlib
import io
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from documents import ROOT, anchors, documents, examples, links

WITH_EXAMPLES = [page for page in documents() if examples(page)]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks run in order, in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__example__"}
    runnable = [example for example in examples(page) if example.reason is None]
    if not runnable:
        pytest.skip("every example of this page says why it is not run")
    for example in runnable:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(example.code, str(page), "exec"), namespace)
        except Exception as error:
            pytest.fail(f"{name(page)}:{example.line}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("page", documents(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (
            anchor and found.suffix == ".md" and anchor not in anchors(found)
        ):
            broken.append(target)
    assert not broken


def test_the_glossary_of_sites_is_current() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_sites.py"))
    message = "run: python docs/make_sites.py"
    assert made["text"]() == made["OUT"].read_text(encoding="utf-8"), message


PROMISED = """
gpt2 gpt_bigcode gpt_neo gpt_neox gptj codegen opt bloom falcon mpt biogpt xglm llama mistral
mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 gemma3_text phi phi3 olmo olmo2 olmoe
stablelm starcoder2 cohere cohere2 granite smollm3 glm4 nemotron gpt_oss deepseek_v3
"""


def test_the_table_of_families_has_every_promised_one() -> None:
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    opens = page.split("## Open and verify", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"^\| `([^`]+)` \|", opens, re.MULTILINE))
    assert not set(PROMISED.split()) - listed


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_check_installs_as_the_readme_does() -> None:
    (test,) = [line for line in commands(ROOT / "README.md") if "/pytest" in line]
    installing = re.findall(r"pip install (.+?) &&", test)
    check = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert len(installing) == 1
    assert installing[0] in check
    running = test.rpartition("/pytest ")[2]
    assert running in check


@pytest.mark.parametrize("extra", ["test", "docs"])
def test_every_direct_requirement_is_pinned(extra: str) -> None:

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = project["dependencies"] + project["optional-dependencies"][extra]
    wanted = {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in required}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([\w\-]+)==", pins, re.MULTILINE))
    assert wanted <= pinned
