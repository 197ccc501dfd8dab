"""What can go wrong on the local node.

::

    NodeError                     base: something on this machine, said in one sentence
    ├── IsolationError            this machine (as it is) cannot isolate Pods; the message names the cure
    │   └── UnsupportedMachineError   no system call filter for this processor
    ├── HelperError               the pod network refused one request; the Pod concerned failed, others go on
    ├── HelperGoneError           the pod network's process ended: all Pods ended with it
    ├── StateInUseError           another node runs on the same state directory
    ├── ContainerError            a container cannot be started; carries Kubernetes' reason word
    │   ├── ImageError            its image does not exist here
    │   └── RuntimeUnavailableError   this machine lacks the runtime that its Pod asks for
    └── PodNotRunningError        logs, exec or port-forward of a container that is not there
"""


class NodeError(Exception):
    """Base of everything this room raises."""


class IsolationError(NodeError):
    """This machine cannot isolate Pods; the message names the package, sysctl or profile that would cure it."""


class UnsupportedMachineError(IsolationError):
    """No table of system calls for this processor."""


class HelperError(NodeError):
    """The pod network refused a request.

    Attributes:
        errno: the kernel's error number, 0 if there is none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class HelperGoneError(NodeError):
    """The pod network's process is gone, and with it every process and interface it owned."""


class StateInUseError(NodeError):
    """Another node works in the same state directory; stop it, or choose another directory."""


class ContainerError(NodeError):
    """A container cannot be started.

    Attributes:
        reason: the word for ``state.waiting.reason``, as a kubelet uses it.
        retry: whether a later attempt may help without a change of the Pod.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImageError(ContainerError):
    """The image does not exist on this node."""

    def __init__(self, message: str) -> None:
        super().__init__("ErrImagePull", message)


class RuntimeUnavailableError(ContainerError):
    """This machine does not have the runtime that a Pod asks for; the message says why, and what would give it."""

    def __init__(self, message: str) -> None:
        super().__init__("ContainerCreating", message)


class PodNotRunningError(NodeError):
    """There is no such running container."""
