"""A final norm as a linear map, once its scale is frozen.

Every norm that decoders use is  y = gain · c(x) / sqrt(mean(c(x)²) + eps) + bias,  where c
subtracts the mean (LayerNorm) or does nothing (RMSNorm). With the denominator held at what it was
in a run, y is linear in x, and contributions to x are contributions to y: this is the frozen norm
of direct logit attribution (Elhage et al. 2021, "A Mathematical Framework for Transformer
Circuits"). Whether c centres, the gain and the bias are measured on the module itself, so that
"1 + weight" gains and norms without parameters need no code of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cutaway.errors import ModelError


@dataclass(frozen=True)
class FrozenNorm:
    """The linear map that a norm is, at a given scale."""

    gain: Float[Tensor, " d_model"]
    """Multiplies each coordinate."""
    bias: Float[Tensor, " d_model"]
    """Added at the end."""
    centres: bool
    """Whether the mean is subtracted first."""
    eps: float
    """Added to the mean square."""

    def scale(self, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b 1"]:
        """The denominator at `x`."""
        centred = self.centred(x.float())
        return (centred.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt()

    def centred(self, x: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """x less its mean, where the norm does that."""
        return x - x.mean(dim=-1, keepdim=True) if self.centres else x

    def pull_back(self, direction: Float[Tensor, "*b d_model"]) -> Float[Tensor, "*b d_model"]:
        """The direction g with  g · x / scale = direction · (norm(x) − bias)."""
        return self.centred(direction.float() * self.gain)


def frozen(norm: nn.Module, width: int, device: torch.device, dtype: torch.dtype) -> FrozenNorm:
    """Measure a norm: is it centring, what are its gain and bias."""
    eps = next(
        (float(getattr(norm, name)) for name in ("eps", "variance_epsilon") if hasattr(norm, name)),
        0.0,
    )
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(width, generator=generator).sign() * 2 + 0.5 * torch.randn(
            width, generator=generator
        )
        x = probe.to(device, dtype)[None, None]
        bias = norm(torch.zeros_like(x)).float()[0, 0]
        plain, shifted = norm(x).float()[0, 0] - bias, norm(x + 4).float()[0, 0] - bias
        tolerance = 1e-3 if dtype == torch.float32 else 0.1
        centres = bool((plain - shifted).norm() < tolerance * plain.norm())
        found = FrozenNorm(torch.ones_like(bias), bias, centres, eps)
        gain = plain * found.scale(x)[0, 0] / found.centred(x.float())[0, 0]
        if not bool(torch.isfinite(gain).all()):
            raise ModelError(f"The final norm {type(norm).__name__} is not one that can be frozen.")
        found = FrozenNorm(gain, bias, centres, eps)
        again = found.gain * found.centred(2 * x.float()) / found.scale(2 * x) + bias
        if bool((again - norm(2 * x).float()).norm() > tolerance * again.norm()):
            raise ModelError(
                f"The final norm {type(norm).__name__} is not a scaled, shifted or centred "
                "division by the root mean square, so it cannot be frozen."
            )
    return found
