"""Kubernetes quantities, such as ``100m``, ``1.5Gi`` or ``2e3``, as exact numbers."""

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(m|k|[KMGTPE]i?|u|n)?")
_FACTORS: Final = {
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    **{letter: Decimal(10) ** (3 * power) for power, letter in enumerate("KMGTPE", start=1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", start=1)},
}

_MOST: Final = Decimal(2**63 - 1)
"""Kubernetes takes everything larger for this, and so nobody works on a number with a billion digits."""


def is_quantity(text: str) -> bool:
    """Whether it is one."""
    try:
        parse_quantity(text)
    except ValueError:
        return False
    return True


def parse_quantity(text: str | float) -> Decimal:
    """The value of a quantity.

    Raises:
        ValueError: it is not one.

    >>> int(parse_quantity("64Mi"))
    67108864
    >>> float(parse_quantity("250m"))
    0.25
    """
    match = _QUANTITY.fullmatch(str(text))
    try:
        if match is not None:
            value = Decimal(match.group(1)) * _FACTORS[match.group(2) or ""]
            return max(-_MOST, min(_MOST, value))
    except ArithmeticError:
        pass  # several dots, or more digits of an exponent than any machine has bytes
    raise ValueError(f"{text!r} is not a quantity such as 500m, 64Mi or 2")
