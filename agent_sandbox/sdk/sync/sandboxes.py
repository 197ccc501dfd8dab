"""All sandboxes of a namespace: make them, find them again, list them, delete them, work on many.

Generated from ``agent_sandbox/sdk/sandboxes.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""


# ruff: noqa: SLF001 - a view and what it shows are one

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

from agent_sandbox.sdk.catalog import PoolInfo, TemplateInfo
from agent_sandbox.sdk.facade import ContextFacade, in_threads
from agent_sandbox.sdk.options import ConnectionOptions
from agent_sandbox.sdk.results import SandboxChange, SandboxInfo
from agent_sandbox.sdk.sandboxes import AsyncSandboxes
from agent_sandbox.sdk.sync.sandbox import Sandbox

Item = TypeVar("Item")
Result = TypeVar("Result")


class Sandboxes(ContextFacade[AsyncSandboxes]):
    """The sandboxes of one namespace.

    >>> def main() -> None:
    ...     with Sandboxes() as sandboxes:
    ...         with sandboxes.use("python-sandbox-template") as sandbox:
    ...             print((sandbox.run("hostname")).stdout)

    Use it as a context manager. Leaving closes connections only: sandboxes made
    by ``create`` live on until they are deleted or expire.

    Attributes:
        namespace: where sandboxes are made and looked for.
    """

    _core: ClassVar[type[AsyncSandboxes]] = AsyncSandboxes

    def __init__(self, namespace: str = "default", options: ConnectionOptions | None = None) -> None:
        """
        Args:
            namespace: where sandboxes are made and looked for.
            options: how to reach the cluster and its sandboxes; by default whatever is there. The namespace counts
                that is given here.
        """
        self._inner = self._core(namespace, options)

    @property
    def namespace(self) -> str:
        """Where sandboxes are made and looked for."""
        return self._inner.namespace

    def create(
        self,
        template_name: str | None = None,
        *,
        name: str | None = None,
        warmpool: str | None = None,
        template_namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        pod_labels: Mapping[str, str] | None = None,
        pod_annotations: Mapping[str, str] | None = None,
        volume_claim_templates: Sequence[Mapping[str, Any]] = (),
        ttl: float | None = None,
        ready_timeout: float = 180,
    ) -> Sandbox:
        """Make a sandbox that lives until it is deleted or its ttl ends. If this fails, nothing is left behind.

        Args:
            template_name: the SandboxTemplate to make it from; may be left out where ``warmpool`` names a pool.
            name: name of the claim; made up if unset.
            warmpool: ``none`` starts cold, a name takes from that pool; unset takes from any pool of the template.
            template_namespace: namespace of the template if it is another one.
            labels: labels of the claim, to find it again by.
            annotations: annotations of the claim.
            env: environment variables of the sandbox, if the template allows them.
            pod_labels: labels to add to the Pod.
            pod_annotations: annotations to add to the Pod.
            volume_claim_templates: volumes of its own, as in a StatefulSet, if the template allows them.
            ttl: seconds until the cluster deletes it; None means never.
            ready_timeout: seconds that it may take to become ready.

        Raises:
            SandboxTemplateNotFoundError, SandboxWarmPoolNotFoundError: what it is to be made from does not exist.
            SandboxClaimFailedError: it cannot be; the error has the condition's reason and message.
            SandboxReadyTimeoutError: it took too long.
            SandboxError: the cluster cannot be reached or refuses.
        """
        return Sandbox._around(
            self._run(
                lambda job: self._inner.create(
                    template_name,
                    name=name,
                    warmpool=warmpool,
                    template_namespace=template_namespace,
                    labels=labels,
                    annotations=annotations,
                    env=env,
                    pod_labels=pod_labels,
                    pod_annotations=pod_annotations,
                    volume_claim_templates=volume_claim_templates,
                    ttl=ttl,
                    ready_timeout=ready_timeout,
                )
            )
        )

    def use(
        self,
        template_name: str | None = None,
        *,
        warmpool: str | None = None,
        template_namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        pod_labels: Mapping[str, str] | None = None,
        pod_annotations: Mapping[str, str] | None = None,
        volume_claim_templates: Sequence[Mapping[str, Any]] = (),
        ttl: float | None = None,
        heartbeat: bool = False,
        ready_timeout: float = 180,
    ) -> AbstractContextManager[Sandbox]:
        """A sandbox for the length of a block, deleted however the block ends. Arguments as for ``create``.

        With ``heartbeat``, the ttl (60 s if none is given) is extended again and again while the block lasts; a short
        one is then enough for the cluster to delete the sandbox of a program that was killed. It counts from Ready on:
        until then the sandbox has ``ready_timeout`` more.
        """
        return self._enter_view(
            Sandbox,
            self._inner.use(
                template_name,
                warmpool=warmpool,
                template_namespace=template_namespace,
                labels=labels,
                annotations=annotations,
                env=env,
                pod_labels=pod_labels,
                pod_annotations=pod_annotations,
                volume_claim_templates=volume_claim_templates,
                ttl=ttl,
                heartbeat=heartbeat,
                ready_timeout=ready_timeout,
            ),
        )

    def connect(self, name: str, *, ready_timeout: float = 180) -> Sandbox:
        """A handle on a sandbox that exists. Nothing of it is changed by this, whatever goes wrong, but for one
        annotation: its claim names this client's access key afterwards, if the client needs one and may add it.

        Args:
            name: name of its claim, or of the Sandbox.
            ready_timeout: seconds to wait if it is not ready at present. A suspended one is not waited for: its handle
                can ``resume`` it.

        Raises:
            SandboxNotFoundError: there is no such claim or Sandbox, or the Sandbox belongs to no claim.
            SandboxError: it is not ready and will not be, or the cluster cannot be reached.
        """
        return Sandbox._around(self._run(lambda job: self._inner.connect(name, ready_timeout=ready_timeout)))

    def get(self, name: str) -> SandboxInfo:
        """What the cluster says of one sandbox now.

        Args:
            name: name of its claim, or of the Sandbox.

        Raises:
            SandboxNotFoundError: there is none.
        """
        return self._run(lambda job: self._inner.get(name))

    def delete(self, name: str) -> None:
        """Delete a sandbox by the name of its claim or of the Sandbox.

        Raises:
            SandboxNotFoundError: there is none.
            SandboxCleanupError: it could not be deleted.
        """
        return self._run(lambda job: self._inner.delete(name))

    def create_many(
        self,
        template_name: str,
        count: int,
        *,
        at_once: int = 10,
        warmpool: str | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        ttl: float | None = None,
        ready_timeout: float = 180,
    ) -> list[Sandbox]:
        """Make many sandboxes, all or none: if one cannot be made, those that were are deleted again.

        Args:
            template_name: as for ``create``, like the rest.
            count: how many.
            at_once: how many are being made at one time; it bounds the load on the cluster.
            warmpool: as for ``create``.
            labels: as for ``create``.
            env: as for ``create``.
            ttl: as for ``create``.
            ready_timeout: as for ``create``, for each.

        Raises:
            SandboxError: why the first one could not be made.
        """
        return [
            Sandbox._around(item)
            for item in self._run(
                lambda job: self._inner.create_many(
                    template_name,
                    count,
                    at_once=at_once,
                    warmpool=warmpool,
                    labels=labels,
                    env=env,
                    ttl=ttl,
                    ready_timeout=ready_timeout,
                )
            )
        ]

    def map(
        self,
        work: Callable[[Sandbox, Item], Result],
        items: Iterable[Item],
        *,
        template_name: str,
        at_once: int = 10,
        warmpool: str | None = None,
        labels: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        ttl: float | None = None,
        heartbeat: bool = False,
        ready_timeout: float = 180,
    ) -> list[Result]:
        """Do the work for each item in a fresh sandbox of its own; results come in the order of the items.

        Args:
            work: what to do; gets the sandbox and the item.
            items: taken one by one, when a place is free: an endless generator is fine until it is asked to end.
            template_name: as for ``create``, like the rest.
            at_once: how many sandboxes exist at one time.
            warmpool: as for ``create``.
            labels: as for ``create``.
            env: as for ``create``.
            ttl: as for ``create``.
            heartbeat: as for ``use``.
            ready_timeout: as for ``create``, for each.

        Raises:
            Exception: the first one that the work or the making of a sandbox raised; the rest was cancelled and every
                sandbox deleted.
        """
        return self._run(
            lambda job: self._inner.map(
                in_threads(Sandbox, work),
                items,
                template_name=template_name,
                at_once=at_once,
                warmpool=warmpool,
                labels=labels,
                env=env,
                ttl=ttl,
                heartbeat=heartbeat,
                ready_timeout=ready_timeout,
            )
        )

    def list(
        self, *, labels: Mapping[str, str] | None = None, label_selector: str = "", all_namespaces: bool = False
    ) -> Generator[SandboxInfo, None, None]:
        """All sandboxes, page by page, so that ten thousand of them are never in memory at once.

        Args:
            labels: only those with all of these labels.
            label_selector: only those that this selector of Kubernetes matches, for example ``team in (a,b)``.
            all_namespaces: those of other namespaces too.

        Raises:
            SandboxError: the cluster cannot be reached or refuses.
        """
        return self._iterate(
            self._inner.list(labels=labels, label_selector=label_selector, all_namespaces=all_namespaces)
        )

    def watch(
        self, *, labels: Mapping[str, str] | None = None, label_selector: str = "", all_namespaces: bool = False
    ) -> Generator[SandboxChange, None, None]:
        """The sandboxes as they are, and then every change, until the caller has enough.

        An API server that is away is waited for. What happened meanwhile is told when it is back: what has changed, and
        what has gone.

        Args:
            labels: as for ``list``, like the rest.
            label_selector: only those that this selector matches.
            all_namespaces: those of other namespaces too.

        Raises:
            SandboxError: the cluster refuses.
        """
        return self._iterate(
            self._inner.watch(labels=labels, label_selector=label_selector, all_namespaces=all_namespaces)
        )

    def templates(self) -> Sequence[TemplateInfo]:
        """What sandboxes can be made from here, by name.

        Raises:
            SandboxError: the cluster cannot be reached or refuses.
        """
        return self._run(lambda job: self._inner.templates())

    def pools(self) -> Sequence[PoolInfo]:
        """The warm pools of the namespace, by name.

        Raises:
            SandboxError: the cluster cannot be reached or refuses.
        """
        return self._run(lambda job: self._inner.pools())


__all__ = ["Sandboxes"]
