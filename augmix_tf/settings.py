"""The knobs of AugMix, and how steps and large datasets are named."""

from __future__ import annotations

import dataclasses
import re

from augmix_tf import checks

LONGEST_RANDOM_CHAIN = 3
LOWEST_LEVEL = 0.1
# Datasets of large pictures that have recipes of their own.
FOLDER, IMAGENET = "folder", "imagenet2012"


@dataclasses.dataclass(frozen=True)
class AugMixSettings:
    """The knobs of AugMix; the defaults are the paper's for CIFAR (severity 1 for ImageNet).

    Attributes:
        severity: how strong an operation can be; each draws its level from U(0.1, severity).
        width: number of chains that are mixed.
        depth: operations in each chain, or -1 to draw 1, 2 or 3 for each chain.
        alpha: of the Dirichlet and Beta distributions, which weigh chains and original.
        all_ops: also draw color, contrast, brightness and sharpness, which overlap with the
            corruptions of the -C benchmarks and are off in all of the paper's results.

    Raises:
        CommandError: a value out of range.

    >>> AugMixSettings(severity=1)
    AugMixSettings(severity=1, width=3, depth=-1, alpha=1.0, all_ops=False)
    """

    severity: float = 3.0
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    all_ops: bool = False

    def __post_init__(self) -> None:
        # Posterize keeps 4 - int(0.4 * level) bits: at level 10 none would be left.
        checks.require(LOWEST_LEVEL <= self.severity <= 10, "severity in 0.1..10", self.severity)
        whole = isinstance(self.width, int) and self.width >= 1
        checks.require(whole, "a whole mixture width of at least 1", self.width)
        whole = isinstance(self.depth, int) and (self.depth == -1 or self.depth >= 1)
        checks.require(whole, "a mixture depth of -1 or a whole number from 1 on", self.depth)
        checks.require(1e-6 <= self.alpha <= 1e6, "alpha in 1e-6..1e6", self.alpha)

    @property
    def longest_chain(self) -> int:
        """The most operations a chain can have."""
        return LONGEST_RANDOM_CHAIN if self.depth == -1 else self.depth


def first_and_last(name: str, steps: str | None) -> tuple[int, int] | None:
    """Reads two steps, counted from 1, such as "10,20".

    Args:
        name: of the setting, for the error.
        steps: what was given; None: nothing.

    Raises:
        CommandError: not two whole numbers from 1 on, the first at most the last.
    """
    if steps is None:
        return None
    first, _, last = steps.partition(",")
    whole = all(re.fullmatch("[0-9]{1,9}", step) for step in (first, last))
    sound = whole and 1 <= int(first) <= int(last)
    checks.require(sound, f"--{name}=FIRST,LAST, two steps of the run, counted from 1", repr(steps))
    return int(first), int(last)
