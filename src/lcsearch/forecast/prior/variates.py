"""Random variates from one torch.Generator, in closed form: torch's own distributions take no generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Variates:
    """Draws on the generator's device, in float32.

    Attributes:
        generator: the only source of randomness.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.device = generator.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """U(low, high)."""
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1)."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """e^U(ln low, ln high)."""
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def log_normal(self, *shape: int, median: float, sigma: float) -> Tensor:
        """median e^N(0, sigma)."""
        return median * torch.exp(sigma * self.normal(*shape))

    def flip(self, *shape: int, p: float) -> Tensor:
        """True with probability p."""
        return self.uniform(*shape) < p

    def choice(self, *shape: int, weights: tuple[float, ...]) -> Tensor:
        """An index, in proportion to the weights; int64."""
        borders = torch.tensor(weights, device=self.device).cumsum(0)
        return torch.searchsorted(borders[:-1].contiguous(), self.uniform(*shape) * borders[-1], right=True)

    def kumaraswamy(self, *shape: int, a: float, b: float) -> Tensor:
        """On (0, 1) with the distribution function 1 - (1 - x^a)^b (Kumaraswamy 1980): a Beta(a, b) to the eye."""
        return kumaraswamy(self.uniform(*shape), torch.tensor(a), torch.tensor(b))

    def dirichlet_half(self, *shape: int) -> Tensor:
        """Dirichlet(1/2, ..., 1/2) over the last axis: squares of normals (a Gamma(1/2) each) over their sum."""
        squares = self.normal(*shape).square() + 1e-12
        return squares / squares.sum(-1, keepdim=True)

    def student_t(self, freedom: Tensor, *shape: int) -> Tensor:
        """Student's t by the polar method (Bailey 1994): sqrt(v (U^(-2/v) - 1)) cos(2 pi V)."""
        u = self.uniform(*shape).clamp(min=1e-7)
        angle = 2.0 * math.pi * self.uniform(*shape)
        return torch.sqrt(freedom * torch.expm1(-2.0 / freedom * torch.log(u))) * torch.cos(angle)


def kumaraswamy(u: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Quantile (1 - (1 - u)^(1/b))^(1/a)."""
    return (-torch.expm1(torch.log1p(-u.clamp(max=1.0 - 1e-7)) / b.to(u))) ** (1.0 / a.to(u))


def phi(z: Tensor) -> Tensor:
    """Distribution function of the standard normal."""
    made: Tensor = torch.special.ndtr(z)
    return made
