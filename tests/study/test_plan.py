"""A plan is a value: stages left out, added, replaced, run in part; and the report of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest
import xarray as xr

from cutaway.behaviours import Behaviour
from cutaway.errors import StudyError
from cutaway.measure import Result
from cutaway.model import Model
from cutaway.patch import Effects, sweep
from cutaway.study import (
    PLAN,
    BlackBox,
    Inputs,
    Plan,
    Settings,
    Skipped,
    SkippedError,
    Stage,
    Study,
    read_study,
    run,
)
from cutaway.views import Section


@dataclass(frozen=True, kw_only=True, eq=False)
class Lengths(Result):
    """How long the prompts are."""

    values: xr.DataArray
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_dataset(self) -> xr.Dataset:
        return xr.Dataset({"values": self.values}, attrs={"provenance": dict(self.provenance)})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> Self:
        return cls(values=data["values"], provenance=data.attrs["provenance"])


def count(inputs: Inputs) -> Lengths:
    many = inputs.behaviour.clean.lengths.numpy()
    box = inputs.of(BlackBox)
    assert box.n == len(many)
    return Lengths(values=xr.DataArray(many, dims="example"))


def told(found: Lengths) -> Section:
    return Section(heading="How long prompts are", sentences=(f"Up to {int(found.values.max())}.",))


LENGTHS = Stage.of("lengths", "Lengths", count, Lengths, needs=["blackbox"], section=told)
SHORT = PLAN.only("blackbox", "report")


def test_a_stage_of_ones_own_is_saved_kept_and_told(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    plan = SHORT.with_stage(LENGTHS)
    assert list(plan) == ["blackbox", "lengths", "report"]
    first = run(model, behaviour, tmp_path / "s", plan=plan, settings=quick)
    assert first.computed == ("blackbox", "lengths", "report")
    assert Lengths.load(tmp_path / "s" / "lengths.nc").values.equals(
        first.of(Lengths, "lengths").values
    )
    page = first.report.read_text("utf-8")
    assert "How long prompts are" in page
    assert run(model, behaviour, tmp_path / "s", plan=plan, settings=quick).computed == ()
    # another version of the function is another stage; so is what reads it
    newer = plan.with_stage(replace(LENGTHS, version="2"))
    assert list(newer) == list(plan)
    assert run(model, behaviour, tmp_path / "s", plan=newer, settings=quick).computed == (
        "lengths",
    )
    # read back without the model
    again = read_study(tmp_path / "s", plan=plan)
    assert again.of(Lengths, "lengths").values.equals(first.of(Lengths, "lengths").values)
    with pytest.raises(StudyError, match="without the stage 'lengths'"):
        read_study(tmp_path / "s").of(Lengths, "lengths")


def test_a_stage_can_stand_where_one_wants_it_and_give_what_others_give(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    def again(inputs: Inputs) -> Effects:
        return sweep(inputs.model, inputs.behaviour.rows(range(3)), "mlp_out", by="layer")

    def held(inputs: Inputs) -> Lengths:
        assert inputs.of(Effects, "second").site == "mlp_out"
        return Lengths(values=inputs.of(Effects, "first").clean)

    plan = (
        Plan([])
        .with_stage(Stage.of("first", "First", again, Effects))
        .with_stage(Stage.of("last", "Last", held, Lengths, needs=["first"]))
        .with_stage(Stage.of("second", "Second", again, Effects), after="first")
    )
    assert list(plan) == ["first", "second", "last"]
    plan = plan.with_stage(Stage.of("last", "Last", held, Lengths, needs=["first", "second"]))
    found = run(model, behaviour, tmp_path / "s", plan=plan, settings=quick)
    assert found.computed == ("first", "second", "last")


def test_what_is_left_out_is_not_run_and_the_report_says_so(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    plan = PLAN.only("blackbox", "patching", "attention", "report").without("blackbox")
    found = run(model, behaviour, tmp_path / "s", plan=plan, settings=quick)
    assert found.computed == ("patching", "attention", "report")
    page = found.report.read_text("utf-8")
    assert "it is left out of this study’s plan" in page
    # put back, only it and the report are made
    whole = PLAN.only("blackbox", "patching", "attention", "report")
    again = run(model, behaviour, tmp_path / "s", plan=whole, settings=quick)
    assert again.computed == ("blackbox", "report")


def test_every_plan_of_a_single_stage_makes_a_report(
    whole: Study, model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    for name in PLAN:
        if PLAN[name].alone:
            continue
        kept = dict(whole.results)
        made = PLAN.only(name, "report")
        given = {each: kept.get(each) if each in made else Skipped(stage=each, reason="left out.")
                 for each in PLAN if not PLAN[each].alone}  # fmt: skip
        origin = {key: getattr(whole.manifest, key) for key in
                  ("versions", "model", "behaviour", "settings", "command", "python")}  # fmt: skip
        report = PLAN["report"].compute(
            Inputs(
                model=model, behaviour=behaviour, settings=quick, results=given, origin=origin,
                tick=lambda _done, _of: None,
            )
        )  # fmt: skip
        assert report.sections, name


def test_a_report_is_made_again_without_computing_anything(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Model, "run", lambda *_, **__: pytest.fail("the model was run"))
    before = (finished / "report.html").stat().st_mtime_ns
    again = run(model, behaviour, finished, settings=quick, again=["report"])
    assert again.computed == ("report",)
    assert (finished / "report.html").stat().st_mtime_ns > before
    with pytest.raises(StudyError, match="no stage 'reprot'; a study has"):
        run(model, behaviour, finished, settings=quick, again=["reprot"])


def test_a_stage_made_again_with_the_same_numbers_leaves_what_reads_it(
    finished: Path, model: Model, behaviour: Behaviour, quick: Settings
) -> None:
    again = run(model, behaviour, finished, settings=quick, stages=["patching"], again=["patching"])
    assert again.computed == ("patching",)
    after = run(model, behaviour, finished, settings=quick)
    assert set(after.computed) <= {"attention", "redteam", "report"}


def test_plans_that_cannot_work_are_refused() -> None:
    with pytest.raises(
        StudyError, match="'attention' needs 'patching', which does not stand before"
    ):
        PLAN.without("patching")
    with pytest.raises(StudyError, match="no stage 'scrub'; a study has: "):
        PLAN.without("scrub")
    with pytest.raises(StudyError, match="'lengths' needs 'blackbox', which does not stand before"):
        Plan([LENGTHS, PLAN["blackbox"]])
    with pytest.raises(StudyError, match="each stage once, and 'lens' is in this one twice"):
        Plan([PLAN["lens"], PLAN["lens"]])
    with pytest.raises(StudyError, match="reads the setting 'speed', which there is not"):
        Plan([Stage.of("x", "X", count, Lengths, reads=["speed"])])
    with pytest.raises(StudyError, match="one word, which names its files; found 'a/b'"):
        Stage.of("a/b", "X", count, Lengths)


def test_a_stage_of_ones_own_may_skip_itself(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path: Path
) -> None:
    def never(inputs: Inputs) -> Lengths:
        raise SkippedError("there is nothing to count.")

    plan = SHORT.with_stage(Stage.of("lengths", "Lengths", never, Lengths, section=told))
    found = run(model, behaviour, tmp_path / "s", plan=plan, settings=quick)
    assert found.results["lengths"] == Skipped(stage="lengths", reason="there is nothing to count.")
    assert "there is nothing to count" in found.report.read_text("utf-8")


def test_a_damaged_file_counts_as_skipped_when_a_study_is_read(finished: Path) -> None:
    (finished / "blackbox.nc").write_bytes(b"half")
    found = read_study(finished)
    with pytest.raises(StudyError, match=r"'blackbox' was skipped: .* is not what was saved; run"):
        _ = found.blackbox
    assert found.computed == ()
    assert found.attribution.values.sizes["example"] == 8
    with pytest.raises(StudyError, match="holds no study"):
        read_study(finished.parent / "elsewhere")
