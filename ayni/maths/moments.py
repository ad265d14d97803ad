"""Mean and deviation of numbers that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Moments:
    """Of `count` numbers: their mean, and the sum of squared distances to it."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def joined(self, x: Tensor) -> Moments:
        """With the numbers x (N,) too, as if all had come at once (Chan et al. 1979)."""
        x, more = x.double(), len(x)
        if not more:
            return self
        mean, count = float(x.mean()), self.count + more
        gap = mean - self.mean
        squares = self.squares + float(((x - mean) ** 2).sum()) + gap**2 * self.count * more / count
        return Moments(count, self.mean + gap * more / count, squares)

    @property
    def deviation(self) -> float:
        """Biased; 0 of none."""
        return (self.squares / max(self.count, 1)) ** 0.5
