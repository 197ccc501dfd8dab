"""How long a hollow node takes to make a Pod Ready."""

import math
import random
from dataclasses import dataclass

FORMS = "0.5 (always), 0.2..1.5 (uniform), or p50=0.8,p99=4 (log-normal)"


@dataclass(frozen=True)
class StartDelay:
    """A distribution of seconds, as a person writes it: one of ``FORMS``.

    Raises:
        ValueError: the text is none of them.
    """

    text: str

    def __post_init__(self) -> None:
        self.draw(random.Random(0))  # noqa: S311 - refuses a bad text at once

    def draw(self, chance: random.Random) -> float:
        """One delay."""
        try:
            if ".." in self.text:
                low, _, high = self.text.partition("..")
                return chance.uniform(float(low), float(high))
            if "=" in self.text:
                parts = dict(part.strip().split("=", 1) for part in self.text.split(","))
                median, late = float(parts["p50"]), float(parts["p99"])
                # 2.326 standard deviations of the logarithm lie between a log-normal's median and its 99th percentile.
                return chance.lognormvariate(math.log(median), math.log(late / median) / 2.326)
            return float(self.text)
        except (ValueError, KeyError, ZeroDivisionError) as error:
            raise ValueError(f"{self.text!r} is no distribution of seconds; write {FORMS}") from error
