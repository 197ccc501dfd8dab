"""What was measured, as it is kept in a file: raw samples, so that every figure can be made again from them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

SCHEMA: Final = 1


class ReportError(Exception):
    """A file that is no report of this form."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario.

    Attributes:
        scenario: its name.
        parameters: what it was asked to do.
        unit: what the samples are, for example ``claims``.
        seconds: one latency for each unit, in the order in which they began.
        elapsed: from the first request to the last answer.
        writes: successful API writes by ``verb resource``, the benchmark's own left out; None if the server hides them.
        controller_cpu: seconds, of all the controllers' processes.
        controller_memory: peak bytes.
        server_cpu: seconds, of the API server alone, without etcd.
        figures: what only this scenario has, with its unit in its name.
        notes: what a reader must know.
    """

    scenario: str
    parameters: dict[str, Any]
    unit: str
    seconds: list[float]
    elapsed: float
    writes: dict[str, int] | None = None
    controller_cpu: float | None = None
    controller_memory: int | None = None
    server_cpu: float | None = None
    figures: dict[str, float] = {}
    notes: list[str] = []

    @property
    def rate(self) -> float:
        """Units per second from the first request to the last answer."""
        return len(self.seconds) / self.elapsed if self.elapsed else math.nan

    def percentile(self, share: float) -> float:
        """The sample below which this share of all lies: the nearest one, never between two."""
        ordered = sorted(self.seconds)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan

    @property
    def writes_each(self) -> float | None:
        """API writes per unit, with everything that came after it."""
        return None if self.writes is None else sum(self.writes.values()) / max(1, len(self.seconds))


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run, or several rounds of it put together.

    Attributes:
        controllers: what was measured, by the name that the user gave it.
        api_version: the version of the API that was spoken.
        server: the API server's own version.
        node: how Pods became Ready.
        when: RFC 3339.
        machine: where the benchmark ran.
        results: one for each scenario, in the order of running.
        rounds: how many runs were put together.
    """

    controllers: str
    api_version: str
    server: str
    node: str
    when: str
    machine: str
    results: list[Measured]
    rounds: int = 1
    schema: int = SCHEMA

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read one.

        Raises:
            ReportError: the file is none.
        """
        try:
            report = msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise ReportError(f"{path} is no benchmark report: {error}") from error
        if report.schema != SCHEMA:
            raise ReportError(f"{path} has form {report.schema}, this program reads form {SCHEMA}: measure again")
        return report


def merge(reports: Sequence[Report]) -> Report:
    """Put the rounds of one subject together: samples side by side, costs added, the larger memory.

    A round that was cut short may lack the last scenarios of the first.
    """
    first = reports[0]
    results = [
        _merged([report.results[index] for report in reports if index < len(report.results)])
        for index in range(len(first.results))
    ]
    return msgspec.structs.replace(first, results=results, rounds=sum(report.rounds for report in reports))


def _merged(parts: Sequence[Measured]) -> Measured:
    writes: dict[str, int] | None = {}
    for part in parts:
        if part.writes is None or writes is None:
            writes = None
            break
        for name, count in part.writes.items():
            writes[name] = writes.get(name, 0) + count
    figures = {name: sum(part.figures.get(name, math.nan) for part in parts) / len(parts) for name in parts[0].figures}
    return Measured(
        scenario=parts[0].scenario,
        parameters=parts[0].parameters,
        unit=parts[0].unit,
        seconds=[sample for part in parts for sample in part.seconds],
        elapsed=sum(part.elapsed for part in parts),
        writes=writes,
        controller_cpu=_sum([part.controller_cpu for part in parts]),
        controller_memory=max((part.controller_memory for part in parts if part.controller_memory), default=None),
        server_cpu=_sum([part.server_cpu for part in parts]),
        figures=figures,
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
