"""Label selectors: read them in both forms that Kubernetes has, match them against labels, write them for a query."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent_sandbox_api.meta import LabelSelector


class Operator(StrEnum):
    """How a requirement compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True)
class Requirement:
    """One condition on one label key."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the labels meet this requirement. As in Kubernetes, ``NotIn`` holds for an absent key."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case Operator.IN if len(self.values) == 1:
                return f"{self.key}={values}"
            case Operator.IN:
                return f"{self.key} in ({values})"
            case Operator.NOT_IN if len(self.values) == 1:
                return f"{self.key}!={values}"
            case Operator.NOT_IN:
                return f"{self.key} notin ({values})"
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"


@dataclass(frozen=True)
class Selector:
    """A conjunction of requirements; without any it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if the labels meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = Selector()

_REQUIREMENT = re.compile(
    r"""\s*(?:
        (?P<absent>!\s*[\w./-]+)
      | (?P<set_key>[\w./-]+)\s+(?P<set_operator>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<key>[\w./-]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[\w.-]*)
      | (?P<present>[\w./-]+)
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def parse_selector(text: str) -> Selector:
    """Read the string form, for example ``app=web,tier in (a,b),!legacy``.

    Raises:
        ValueError: the text is no selector; the message says where it stops making sense.
    """
    requirements: list[Requirement] = []
    position = 0
    while position < len(text.rstrip()):
        found = _REQUIREMENT.match(text, position)
        if found is None:
            raise ValueError(f"label selector {text!r} is not understood from {text[position:]!r} on")
        requirements.append(_requirement(found))
        position = found.end()
    return Selector(tuple(requirements))


def _requirement(found: "re.Match[str]") -> Requirement:
    if found["absent"]:
        return Requirement(found["absent"].lstrip("! "), Operator.DOES_NOT_EXIST)
    if found["set_key"]:
        operator = Operator.IN if found["set_operator"] == "in" else Operator.NOT_IN
        return Requirement(found["set_key"], operator, frozenset(value.strip() for value in found["values"].split(",")))
    if found["key"]:
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return Requirement(found["key"], operator, frozenset({found["value"]}))
    return Requirement(found["present"], Operator.EXISTS)


def selector_from(structured: LabelSelector | Mapping[str, Any]) -> Selector:
    """Read the structured form (``matchLabels``, ``matchExpressions``).

    Raises:
        ValueError: an expression has an unknown operator.
    """
    wire = structured.to_json() if isinstance(structured, LabelSelector) else structured
    requirements = [
        Requirement(key, Operator.IN, frozenset({value})) for key, value in (wire.get("matchLabels") or {}).items()
    ]
    requirements += [
        Requirement(entry["key"], Operator(entry["operator"]), frozenset(entry.get("values") or ()))
        for entry in wire.get("matchExpressions") or ()
    ]
    return Selector(tuple(requirements))


def format_labels(labels: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """The string form that selects objects carrying all these labels; sorted, so that equal labels give equal text."""
    return ",".join(f"{key}={value}" for key, value in sorted(dict(labels).items()))
