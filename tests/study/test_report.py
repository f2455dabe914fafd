"""What the report says is what the numbers say."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.study import Settings, Study, run
from cutaway.study import sentences as say
from cutaway.study.stage import within
from cutaway.views.text import number


@pytest.fixture(scope="module")
def page(whole: Study) -> str:
    return unescape(whole.report.read_text("utf-8"))


def test_every_stage_has_its_section(page: str) -> None:
    for heading in (
        "The behaviour", "From outside", "Layer by layer", "Which parts write the answer",
        "Which parts carry it", "Where the strongest heads look", "Reproduce this report",
    ):  # fmt: skip
        assert f"<bdi>{heading}</bdi></h2>" in page or f"{heading}</h2>" in page


def test_accuracy_and_intervals_are_those_of_the_result(page: str, whole: Study) -> None:
    box = whole.blackbox
    right = round(box.each("accuracy").sum())
    assert f"{right} of {box.n} clean prompts" in page
    assert say.with_ends(box.interval("logit_diff")) in page


def test_patching_is_told_in_the_behaviours_own_metric(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    found = run(model, replace(behaviour, metric="prob_diff"), tmp_path / "study", settings=quick)
    assert found.patching.heads_denoise.metric == "prob_diff"
    told = [say.main_heads(found.patching), say.strongest(found.patching.stream_noise)]
    assert not any("logit difference" in sentence for sentence in told)
    page = unescape(found.report.read_text("utf-8"))
    assert f"change of the probability difference, {found.patching.n} examples" in page


def test_the_strongest_heads_are_named_and_their_attention_shown(page: str, whole: Study) -> None:
    effects = whole.patching.heads_denoise.mean - whole.patching.heads_noise.mean
    flat = np.abs(effects.to_numpy()).ravel()
    layer, head = np.unravel_index(int(flat.argmax()), effects.shape)
    assert whole.patching.strongest(1) == [(layer, head)]
    assert f"Head {layer}.{head} on prompt 1" in page
    name = f"{layer}.{head}"
    example = int(whole.attention.patterns.values["example"][0])
    weights = whole.attention.patterns.of(name, example).to_numpy()[-1]
    assert f"(token {weights.argmax() + 1}): {number(float(weights.max()))}." in page


def test_the_parts_add_up_on_the_page(page: str, whole: Study) -> None:
    found = whole.attribution
    assert say.attribution_sum(found) in page
    assert f"add up to {number(float(found.total.mean()), 4)};" in page
    assert found.relative_error < 1e-4


def test_it_says_how_to_make_it_again(page: str, whole: Study, behaviour: Behaviour) -> None:
    assert "cutaway study ioi" in page
    assert "cutaway.behaviour('ioi', model, n=10, seed=0)" in page
    assert behaviour.fingerprint in page
    assert whole.manifest.model["fingerprint"] in page


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_the_python_on_the_page_makes_the_study_again(whole: Study, tmp_path: Path) -> None:
    code = whole.manifest.python.replace(str(whole.directory), str(tmp_path / "again"))
    names: dict[str, object] = {}
    exec(code, names)
    again = names["study"]
    assert isinstance(again, Study)
    assert again.blackbox.values.equals(whole.blackbox.values)
    assert again.patching.heads_denoise.values.equals(whole.patching.heads_denoise.values)


def test_the_same_study_gives_the_same_page(whole: Study, finished: Path, model, behaviour) -> None:  # pyright: ignore
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    quick = Settings(**whole.manifest.settings)
    run(model, behaviour, finished, settings=quick)
    assert (finished / "report.html").read_bytes() == before


def test_sentences_claim_nothing_where_nothing_stands_out(whole: Study) -> None:
    effects = whole.patching.heads_denoise
    flat = effects.values * 0 + effects.corrupt
    still = replace(effects, values=flat.transpose(*effects.values.dims))
    assert "nowhere by more than its interval" in say.strongest(still)
    patching = replace(whole.patching, heads_denoise=still, heads_noise=still)
    assert "nowhere by more than its interval" in say.main_heads(patching)


def test_progress_of_parts_only_grows() -> None:
    seen: list[float] = []
    for part, total in enumerate((7, 3, 900)):
        tick = within(lambda done, of: seen.append(done / of), part, 3)
        for done in range(1, total + 1):
            tick(done, total)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
