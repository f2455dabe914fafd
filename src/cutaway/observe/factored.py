"""A matrix kept as the product of two thin ones, which is never multiplied out.

The QK and OV circuits of a head are d_model × d_model matrices of rank d_head: left · right with a
thin left (m × r) and right (r × n). Everything asked of them is had from r × r matrices:

- product with another matrix: one factor grows, the other stays;
- Frobenius norm: ‖A·B‖² = tr(AᵀA · BBᵀ);
- non-zero eigenvalues: those of B·A (r × r), since A·B and B·A share them;
- singular values: with A = Q_a·R_a and Bᵀ = Q_b·R_b, those of R_a·R_bᵀ, whose singular vectors
  Q_a and Q_b carry back.

For d_model = 768 and d_head = 64 that is 12 times less memory, and 100 times fewer operations for a
singular value decomposition. Leading axes are batches, so that all heads are done at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cutaway.errors import CutawayError


class WeightsError(CutawayError):
    """Weights that cannot be read, or matrices that do not fit together."""


@dataclass(frozen=True, eq=False)
class Factored:
    """left · right, kept apart."""

    left: Float[Tensor, "*b m r"]
    """The thin matrix on the left."""
    right: Float[Tensor, "*b r n"]
    """The thin matrix on the right."""

    def __post_init__(self) -> None:
        if self.left.shape[-1] != self.right.shape[-2]:
            raise WeightsError(
                f"The factors do not fit: {tuple(self.left.shape)} has {self.left.shape[-1]} "
                f"columns and {tuple(self.right.shape)} has {self.right.shape[-2]} rows."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product."""
        batch = torch.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])
        return (*batch, self.left.shape[-2], self.right.shape[-1])

    @property
    def rank(self) -> int:
        """At most so many directions."""
        return self.left.shape[-1]

    @property
    def transposed(self) -> Factored:
        """The transpose."""
        return Factored(self.right.mT, self.left.mT)

    def __getitem__(self, index: object) -> Factored:
        """Some of the batch."""
        return Factored(self.left[index], self.right[index])  # type: ignore[index]

    def __matmul__(self, other: Factored | Tensor) -> Factored:
        """The product, with the smaller inner factor."""
        if not isinstance(other, Factored):
            return Factored(self.left, self.right @ other)
        middle = self.right @ other.left
        if self.rank <= other.rank:
            return Factored(self.left, middle @ other.right)
        return Factored(self.left @ middle, other.right)

    def __rmatmul__(self, other: Tensor) -> Factored:
        """A plain matrix times this one."""
        return Factored(other @ self.left, self.right)

    @property
    def product(self) -> Float[Tensor, "*b m n"]:
        """Multiplied out: for small matrices and for tests."""
        return self.left @ self.right

    @property
    def norm(self) -> Float[Tensor, "*b"]:
        """The Frobenius norm."""
        grams = (self.left.mT @ self.left) * (self.right @ self.right.mT).mT
        return grams.sum((-2, -1)).clamp(min=0).sqrt()

    @property
    def trace(self) -> Float[Tensor, "*b"]:
        """The trace, for a square product."""
        self._square("trace")
        return (self.left * self.right.mT).sum((-2, -1))

    @property
    def eigenvalues(self) -> Complex[Tensor, "*b r"]:
        """The eigenvalues that are not zero for want of rank, the largest first."""
        self._square("eigenvalues")
        found = torch.linalg.eigvals(self.right @ self.left)
        order = found.abs().argsort(dim=-1, descending=True, stable=True)
        return found.gather(-1, order)

    def svd(
        self,
    ) -> tuple[Float[Tensor, "*b m k"], Float[Tensor, "*b k"], Float[Tensor, "*b n k"]]:
        """U, S and V with U · diag(S) · Vᵀ the product, and k the smallest of m, r and n."""
        q_left, r_left = torch.linalg.qr(self.left)
        q_right, r_right = torch.linalg.qr(self.right.mT)
        u, s, vh = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
        return q_left @ u, s, q_right @ vh.mT

    def _square(self, what: str) -> None:
        if self.shape[-2] != self.shape[-1]:
            raise WeightsError(
                f"Only a square matrix has {what}; this one is {self.shape[-2]} × {self.shape[-1]}."
            )
