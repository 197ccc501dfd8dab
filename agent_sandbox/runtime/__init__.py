"""A controller runtime: caches, queues, workers, elections, and the process around them. It knows no kind of yours.

In: an API server, through ``agent_sandbox.kube``, and reconcilers. Out: reconciled keys. Read in this order:
``reconcile`` (the contract), ``workqueue``, ``store``, ``watcher``, ``informer``, ``controller``, ``leader_election``,
``manager``. ``docs/write-an-operator.md`` shows how to use it.
"""

from agent_sandbox.runtime.backoff import BackoffOptions, ItemBackoff
from agent_sandbox.runtime.cache import Cache
from agent_sandbox.runtime.cached_client import CachedClient
from agent_sandbox.runtime.certificates import CertificateFiles, CertificateWatcher
from agent_sandbox.runtime.controller import Controller
from agent_sandbox.runtime.errors import (
    CacheSyncError,
    InformerStoppedError,
    LeadershipLostError,
    QueueClosed,
    RuntimeFault,
    ShutdownTimeoutError,
    TerminalError,
    WriteCutError,
)
from agent_sandbox.runtime.events import EventRecorder
from agent_sandbox.runtime.fence import Fence, FencedTransport
from agent_sandbox.runtime.finalizers import Finalizer, FinalizerState
from agent_sandbox.runtime.informer import Informer, InformerOptions
from agent_sandbox.runtime.leader_election import LeaderElectionOptions, LeaderElector
from agent_sandbox.runtime.manager import Manager, ManagerOptions
from agent_sandbox.runtime.metrics import Metrics
from agent_sandbox.runtime.metrics_auth import KubernetesAuthorizer
from agent_sandbox.runtime.predicates import (
    all_of,
    annotations_changed,
    any_of,
    generation_changed,
    labels_changed,
    not_own_status,
)
from agent_sandbox.runtime.rbac import machinery_rules, role, watch_rules
from agent_sandbox.runtime.reconcile import Reconciler, Request, Result
from agent_sandbox.runtime.signals import run_until_signalled
from agent_sandbox.runtime.store import Change, Store
from agent_sandbox.runtime.threads import ThreadedReconciler
from agent_sandbox.runtime.watcher import WatchOptions
from agent_sandbox.runtime.webhooks import AdmissionRequest, Allowed, Denied, WebhookServer
from agent_sandbox.runtime.workqueue import LOW_PRIORITY, WorkQueue

__all__ = [
    "LOW_PRIORITY",
    "AdmissionRequest",
    "Allowed",
    "BackoffOptions",
    "Cache",
    "CacheSyncError",
    "CachedClient",
    "CertificateFiles",
    "CertificateWatcher",
    "Change",
    "Controller",
    "Denied",
    "EventRecorder",
    "Fence",
    "FencedTransport",
    "Finalizer",
    "FinalizerState",
    "Informer",
    "InformerOptions",
    "InformerStoppedError",
    "ItemBackoff",
    "KubernetesAuthorizer",
    "LeaderElectionOptions",
    "LeaderElector",
    "LeadershipLostError",
    "Manager",
    "ManagerOptions",
    "Metrics",
    "QueueClosed",
    "Reconciler",
    "Request",
    "Result",
    "RuntimeFault",
    "ShutdownTimeoutError",
    "Store",
    "TerminalError",
    "ThreadedReconciler",
    "WatchOptions",
    "WebhookServer",
    "WorkQueue",
    "WriteCutError",
    "all_of",
    "annotations_changed",
    "any_of",
    "generation_changed",
    "labels_changed",
    "machinery_rules",
    "not_own_status",
    "role",
    "run_until_signalled",
    "watch_rules",
]
