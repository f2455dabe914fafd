import shutil
import sys
from pathlib import Path

import pytest
import torch

# The small model stands beside the tests that share it.
sys.path.insert(0, str(Path(__file__).parent))

from small_model import save_model

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.model import Model
from cutaway.study import PLAN, Settings, Study, run

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # of seed 6 because its effect is more than a hundredth, as a circuit needs
    return save_model(tmp_path_factory.mktemp("models") / "small", seed=6)


@pytest.fixture(scope="session")
def model(model_directory: Path) -> Model:
    return cutaway.open(model_directory)


@pytest.fixture(scope="session")
def behaviour(model: Model) -> Behaviour:
    return cutaway.behaviour("ioi", model, n=10, seed=0)


@pytest.fixture(scope="session")
def quick() -> Settings:
    return Settings(
        distractor_examples=3, flip_examples=2, flip_passes=60,
        lens_examples=8, patch_examples=3, path_examples=3, heads_shown=2, attention_examples=1,
        controls=2, attack_examples=4,
    )  # fmt: skip


@pytest.fixture(scope="session")
def whole(
    model: Model, behaviour: Behaviour, quick: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    """A whole study, not to be touched."""
    found = run(
        model, behaviour, tmp_path_factory.mktemp("whole") / "study", settings=quick,
        command="cutaway study ioi",
    )  # fmt: skip
    assert found.computed == tuple(PLAN)
    return found


@pytest.fixture
def finished(whole: Study, tmp_path: Path) -> Path:
    """A copy of the directory of a whole study."""
    return Path(shutil.copytree(whole.directory, tmp_path / "finished"))
