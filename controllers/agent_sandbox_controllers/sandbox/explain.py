"""Why a Pod is not Ready, in one word for programs and one sentence for people.

A container that waits for an image or that ended is named with the kubelet's own reason and message: the user should
not have to know that there is a Pod to look into.
"""

from dataclasses import dataclass
from typing import Final

from agent_sandbox_api.core import ContainerStatusView, PodView
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.vocabulary import Reason

_ORDINARY_WAITS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_RUNTIME_FAILURES: Final = frozenset({"StartError", "ContainerCannotRun"})
_IMAGE: Final = "correct the image in the template or sandbox and make it anew, or give the node access to the registry"
_ADVICE: Final = {
    "ErrImagePull": _IMAGE,
    "ImagePullBackOff": _IMAGE,
    "InvalidImageName": _IMAGE,
    "ErrImageNeverPull": "imagePullPolicy is Never and the node does not have the image",
    "CrashLoopBackOff": "it keeps ending; kubectl logs --previous of the Pod shows why",
    "CreateContainerConfigError": "create the Secret or ConfigMap that the Pod spec names, or correct its name",
}
"""What to do, by the kubelet's reason."""


@dataclass(frozen=True)
class Problem:
    """What keeps a Pod from starting."""

    reason: str
    message: str


def container_problem(pod: PodView) -> Problem | None:
    """The first container that cannot start or has failed; None while all goes its ordinary way."""
    for status in pod.status.init_container_statuses + pod.status.container_statuses:
        problem = _problem_of(status)
        if problem is not None:
            return problem
    return None


def _problem_of(status: ContainerStatusView) -> Problem | None:
    waiting, ended = status.state.waiting, status.state.terminated
    if waiting is not None and waiting.reason not in _ORDINARY_WAITS:
        text = f'container "{status.name}" waits: {waiting.reason}'
        if waiting.message:
            text += f": {waiting.message}"
        if last := status.last_state.terminated:
            text += f"; it ended before with exit code {last.exit_code}" + (f": {last.message}" if last.message else "")
        advice = _ADVICE.get(waiting.reason)
        return Problem(waiting.reason, f"{text} ({advice})" if advice else text)
    if ended is not None and ended.exit_code not in (0, None):
        reason = ended.reason if ended.reason in _RUNTIME_FAILURES else Reason.CONTAINER_FAILED
        text = f'container "{status.name}" ended with exit code {ended.exit_code}'
        details = ": ".join(filter(None, (ended.reason, ended.message)))
        return Problem(reason, f"{text}: {details}" if details else text)
    return None


def scheduling_problem(pod: PodView) -> str:
    """The scheduler's reason for not placing the Pod; empty if it has not refused."""
    scheduled = find_condition(pod.status.conditions, "PodScheduled")
    if scheduled is None or scheduled.status != "False":
        return ""
    return ": ".join(filter(None, (scheduled.reason, scheduled.message)))


def failure_of(pod: PodView) -> str:
    """What a failed Pod says about itself."""
    said = ": ".join(filter(None, (pod.status.reason, pod.status.message)))
    problem = container_problem(pod)
    return "; ".join(filter(None, (said, problem.message if problem else "")))
