"""Which errors end a run without being a defect, and which of several at once is the one to tell."""

from typing import Final

from agent_sandbox.bench.bench import BenchError
from agent_sandbox.bench.dialect import DialectError
from agent_sandbox.bench.results import ReportError
from agent_sandbox.bench.subject import SubjectError
from agent_sandbox.kube import KubeError

_EXPECTED: Final = (SubjectError, BenchError, DialectError, ReportError, KubeError, OSError)
"""The first of these explains the others: when controllers end, states are not reached and requests fail."""


def cause_of(error: BaseException) -> Exception | None:
    """The error to show a user: out of a group, such as many clients fail in, the one that explains most.

    None if it is a defect, or a group holds one: its traceback should be seen.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, _EXPECTED) else None
    expected, defects = error.split(_EXPECTED)
    if expected is None or defects is not None:
        return None
    return min(_leaves(expected), key=lambda leaf: [isinstance(leaf, kind) for kind in _EXPECTED].index(True))


def _leaves(error: BaseException) -> list[Exception]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    assert isinstance(error, Exception)
    return [error]
