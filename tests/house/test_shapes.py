"""The shapes that annotations name really are checked while tests run."""

import jaxtyping
import pytest
import torch

from cutaway.behaviours.metrics import METRICS
from cutaway.errors import InputError
from cutaway.model.tokens import Tokens


def test_a_wrong_number_of_axes_is_noticed() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        Tokens(ids=torch.zeros(3, dtype=torch.long), mask=torch.ones(3, dtype=torch.bool))


def test_axes_of_one_name_must_agree() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        METRICS["kl"](torch.zeros(1, 4), None, reference=torch.zeros(1, 5))  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_test_can_see_the_package_refuse_a_shape_itself() -> None:
    with pytest.raises(InputError, match="must have the shape"):
        Tokens(ids=torch.zeros(3, dtype=torch.long), mask=torch.ones(3, dtype=torch.bool))
