"""An answer's numbers are the library's, with and without changes, at any position."""

import json
from typing import Any

import pytest
import torch
from serving import OTHER, PROMPT, Served

from cutaway.explore import between, towards
from cutaway.explore.runs import Runs, Stop
from cutaway.model import Model, Site, ablate, add

HEAD = {"do": "ablate", "site": "z.2.1"}


def test_next_tokens_are_those_of_both_runs(explorer: Served, model: Model) -> None:
    found = explorer.ask(position=10, changes=[HEAD])
    before = model.run(PROMPT).logits[0, 10]
    after = model.run(PROMPT, edits=ablate("z.2.1")).logits[0, 10]
    for each in found["next"]:
        assert each["before"]["logit"] == pytest.approx(float(before[each["id"]]), abs=1e-3)
        assert each["after"]["logit"] == pytest.approx(float(after[each["id"]]), abs=1e-3)
        assert each["after"]["rank"] == int((after > after[each["id"]]).sum())
        share = float(before.softmax(dim=-1)[each["id"]])
        assert each["before"]["probability"] == pytest.approx(share, abs=1e-4)
    ids = {each["id"] for each in found["next"]}
    assert {int(before.argmax()), int(after.argmax())} <= ids
    one, other = before.log_softmax(dim=-1), after.log_softmax(dim=-1)
    assert found["divergence"] == pytest.approx(float((one.exp() * (one - other)).sum()), abs=1e-3)


def test_without_changes_nothing_moves(explorer: Served) -> None:
    found = explorer.ask()
    assert not found["changed"]
    assert found["divergence"] < 1e-9
    assert all(each["before"] == each["after"] for each in found["next"])
    assert not any(cell[3] for row in found["lens"]["cells"] for cell in row)


def test_the_lens_ends_in_the_answer_and_marks_what_changed(explorer: Served) -> None:
    found = explorer.ask(changes=[{"do": "ablate", "site": "mlp_out.0"}])
    last = found["lens"]["cells"][-1]
    best = found["next"][0]
    assert last[-1][0] == best["text"]
    assert last[-1][1] == pytest.approx(best["after"]["probability"], abs=1e-3)
    assert any(cell[3] for cell in last)
    assert not any(cell[3] for cell in found["lens"]["cells"][0])  # before the change


def test_long_prompts_are_shown_around_the_position(explorer: Served) -> None:
    prompt = "the" + " the" * 99
    for position in (0, 50, 99):
        found = explorer.ask(prompt=prompt, position=position)
        first, shown = found["lens"]["first"], len(found["lens"]["cells"][0])
        assert shown == 32
        assert first <= position < first + shown
        assert len(found["attention"]["data"]["tokens"]) == 32
        assert found["attention"]["data"]["query"] == position - first
    assert "Tokens 71 to 102 are shown" in explorer.ask(prompt=prompt)["attention"]["shows"]


def grid(found: Any) -> dict[str, str]:
    """What the map of parts says of each cell."""
    said: dict[str, str] = {}

    def walk(tree: Any) -> None:
        _, attributes, children = tree
        if "data-part" in attributes:
            said[attributes["data-part"]] = children[0][2][0]
        for child in children:
            if isinstance(child, list):
                walk(child)

    walk(found["parts"]["drawing"])
    return said


def test_parts_show_the_run_that_is_asked_for(explorer: Served) -> None:
    with_it = explorer.ask(changes=[HEAD])
    without = explorer.ask(changes=[HEAD], show="plain")
    difference = explorer.ask(changes=[HEAD], show="difference")
    assert len(grid(with_it)) == 5 * 6
    assert grid(with_it)["a2.h1"].endswith(" 0.00")
    assert grid(without) == grid(explorer.ask())
    assert without["target"] == with_it["target"]
    assert "From " in difference["parts"]["shows"]
    moved = {
        part: float(said.split()[-1].replace("−", "-")) for part, said in grid(difference).items()
    }
    assert abs(moved["a0.h0"]) < 0.01  # before the change, nothing moves but the final norm's scale
    assert max(map(abs, moved.values())) > 0.1
    assert "stream" not in with_it["parts"]["shows"]
    steered = {"do": "steer", "site": "resid_post.3", "token": " John", "strength": 2}
    assert "add to the stream" in explorer.ask(changes=[steered])["parts"]["shows"]


def test_neurons_are_told_of_the_layer_asked_for(explorer: Served) -> None:
    found = explorer.ask(neurons=1)
    assert len(found["neurons"]) == 10
    strongest = found["neurons"][0]["neuron"]
    gone = explorer.ask(neurons=1, changes=[{"do": "ablate", "site": f"mlp_post.1.{strongest}"}])
    assert strongest not in [each["neuron"] for each in gone["neurons"] if each["activation"]]
    assert explorer.ask()["neurons"] == []


def test_answers_are_plain_json(explorer: Served) -> None:
    found = explorer.ask(changes=[HEAD], neurons=0, show="difference")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_directions_are_as_long_as_the_stream_and_lead_there(model: Model) -> None:
    site = Site.parse("resid_post.2")
    stream = model.run(PROMPT, keep=[site])[site]
    length = float(stream[0].norm(dim=-1).median())
    found = towards(model, stream, " John")
    assert float(found.norm()) == pytest.approx(length, rel=1e-4)
    john = model.single_token(" John")
    plain = model.run(PROMPT).logits[0, -1].softmax(dim=-1)[john]
    steered = model.run(PROMPT, edits=add(site, found, position=-1)).logits[0, -1]
    assert float(steered.softmax(dim=-1)[john]) > float(plain) + 0.3
    other = model.run(OTHER, keep=[site])[site]
    difference = between(stream, stream, other)
    assert float(difference.norm()) == pytest.approx(length, rel=1e-4)
    along = torch.cosine_similarity(difference, (stream[0, -1] - other[0, -1]), dim=0)
    assert float(along) == pytest.approx(1, abs=1e-5)


def test_runs_are_kept_within_their_budget(model: Model) -> None:
    runs = Runs(model, budget=200_000)
    keep = [Site("resid_post", 0)]
    first = runs.run("A first prompt", keep, Stop())
    assert runs.run("A first prompt", keep, Stop()) is first
    for number in range(100):
        runs.run(f"Prompt {number} of many", keep, Stop())
    assert runs.kept_bytes <= 200_000
    assert runs.run("A first prompt", keep, Stop()) is not first
