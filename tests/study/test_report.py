"""What the report says is what the numbers say."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.patch import path_patch
from cutaway.study import Settings, Study, run
from cutaway.study import patching_sentences as say_patching
from cutaway.study import sentences as say
from cutaway.study.blackbox import chosen
from cutaway.study.report import CHAPTERS
from cutaway.study.stage import within
from cutaway.views.text import number


@pytest.fixture(scope="module")
def page(whole: Study) -> str:
    return unescape(whole.report.read_text("utf-8"))


def test_every_stage_has_its_section(page: str) -> None:
    for heading in (*(chapter.heading for chapter in CHAPTERS), "Reproduce this report"):
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
    told = [
        say_patching.main_heads(found.patching),
        say_patching.strongest(found.patching.stream_noise),
    ]
    assert not any("logit difference" in sentence for sentence in told)
    page = unescape(found.report.read_text("utf-8"))
    assert "change of the probability difference" in page


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


def test_the_page_is_small(whole: Study) -> None:
    # two hundred prompts add some hundred bytes each: benchmarks/report.py
    assert whole.report.stat().st_size < 1_500_000


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
    assert "nowhere by more than its interval" in say_patching.strongest(still)
    patching = replace(whole.patching, heads_denoise=still, heads_noise=still)
    assert "nowhere by more than its interval" in say_patching.main_heads(patching)


def test_a_cell_is_named_when_it_is_more_than_chance(whole: Study) -> None:
    one = whole.patching.heads_denoise
    noise = np.random.default_rng(0).normal(size=(2, 4, 12))
    noise[1, 2] += 3
    base = one.corrupt.isel(example=[0] * 12) * 0
    effects = replace(
        one,
        values=xr.DataArray(noise, one.mean.coords, ("layer", "head", "example")),
        corrupt=base,
        clean=base + 4,
    )
    p = effects.p_corrected
    assert float(p.sel(layer=1, head=2)) < 0.05
    assert int((p < 0.05).sum()) == 1
    assert say_patching.counted(effects).startswith("1 of 8 cells change it by more than chance")
    mean = float(effects.mean.sel(layer=1, head=2))
    told = say_patching.strongest(effects)
    share = f"{100 * mean / 4:.0f} % of the gap"
    assert told.endswith(f"most for head 1.2 ({number(mean, sign=True)}, {share}).")
    centred = noise - noise.mean(axis=2, keepdims=True)
    still = replace(effects, values=effects.values.copy(data=centred))
    assert "nowhere by more than chance" in say_patching.strongest(still)
    assert "too few for p-values" in say_patching.counted(one)


def test_estimates_stand_beside_what_patching_measured(page: str, whole: Study) -> None:
    found = whole.estimates
    assert found.heads.effects.values.sizes == whole.patching.heads_denoise.values.sizes
    assert found.heads_at.effects.axes == ("layer", "head", "position")
    for each in (found.heads, found.heads_at, found.mlps):
        assert say_patching.agreement(each) in page
        assert each.agreement is not None
    worst = found.heads_at.misses(1).to_dict("records")[0]
    name = f"head {worst['layer']}.{worst['head']} at {worst['position']}"
    assert f"the worst miss is {name}, estimated" in page
    exact = whole.patching.heads_denoise.mean.to_numpy()
    estimated = found.heads.effects.mean.to_numpy()
    assert np.corrcoef(estimated.ravel(), exact.ravel())[0, 1] > 0.9


def test_what_has_no_gradient_is_estimated_by_what_it_counts(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    counts = replace(behaviour, metric="accuracy")
    found = run(model, counts, tmp_path / "study", settings=quick, stages=["estimates", "report"])
    assert found.patching.heads_denoise.metric == "accuracy"
    assert found.estimates.heads.effects.metric == "logit_diff"


def test_paths_are_followed_back_from_the_logits(
    page: str, whole: Study, model: Model, behaviour: Behaviour
) -> None:
    found = whole.paths
    first, *back = found.steps
    assert first.receivers == ("logits",)
    assert say_patching.trail(found) in page
    assert [say_patching.received(step.receivers).partition(" ")[0] for step in back] == [
        "queries", "keys", "values",
    ]  # fmt: skip
    rows = behaviour.rows(chosen(len(behaviour), whole.manifest.settings["path_examples"], 0))
    alone = path_patch(model, rows, "head_out", back[0].receivers, mode="noise")
    assert back[0].effects.mean.to_numpy() == pytest.approx(alone.mean.to_numpy(), abs=1e-6)
    for step in found.steps:
        assert say_patching.along(step) in page


def test_progress_of_parts_only_grows() -> None:
    seen: list[float] = []
    for part, total in enumerate((7, 3, 900)):
        tick = within(lambda done, of: seen.append(done / of), part, 3)
        for done in range(1, total + 1):
            tick(done, total)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
