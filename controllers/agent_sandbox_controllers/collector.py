"""The gauge ``agent_sandboxes``: how many Sandboxes there are, by what they are; counted when it is scraped."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.names import (
    ANNOTATION_TEMPLATE_REF,
    CONDITION_READY,
    EXTENSIONS_GROUP,
    LABEL_CREATED_BY,
    LABEL_LAUNCH_TYPE,
)
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.metrics import UNKNOWN
from agent_sandbox_controllers.sandbox.pod_metadata import normalised_creator
from agent_sandbox_controllers.vocabulary import LAUNCH_COLD, LAUNCH_WARM, Reason
from agent_sandbox_controllers.world import World

_LABELS = ("namespace", "ready_condition", "expired", "launch_type", "sandbox_template", "owned_by", "created_by")


class SandboxCollector(Collector):
    """Counts the cache: a scrape costs no request."""

    def __init__(self, world: World) -> None:
        self._world = world

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The metric without samples."""
        return [self._family()]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The metric as of now."""
        family = self._family()
        for labels, count in Counter(map(labels_of, self._world.sandboxes)).items():
            family.add_metric(labels, count)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily("agent_sandboxes", "Sandboxes that exist.", labels=_LABELS)


def labels_of(view: SandboxView) -> tuple[str, ...]:
    """The label values under which a Sandbox is counted."""
    meta = view.metadata
    ready = find_condition(view.status.conditions, CONDITION_READY)
    controller = meta.controller
    owner = controller.kind if controller is not None and controller.group == EXTENSIONS_GROUP else "None"
    launch = meta.labels.get(LABEL_LAUNCH_TYPE, UNKNOWN)
    return (
        meta.namespace,
        ready.status.lower() if ready is not None else "false",
        "true" if ready is not None and ready.reason == Reason.SANDBOX_EXPIRED else "false",
        launch if launch in (LAUNCH_WARM, LAUNCH_COLD) else UNKNOWN,
        meta.annotations.get(ANNOTATION_TEMPLATE_REF, UNKNOWN),
        owner,
        normalised_creator(meta.labels.get(LABEL_CREATED_BY, "")),
    )
