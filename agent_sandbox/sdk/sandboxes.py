"""All sandboxes of a namespace: make them, find them again, list them, delete them, work on many."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from agent_sandbox.kube import (
    GoneError,
    KubeError,
    NotFoundError,
    format_labels,
)
from agent_sandbox.sdk.batches import run_batch
from agent_sandbox.sdk.catalog import PoolInfo, TemplateInfo, list_pools, list_templates, template_of_pool
from agent_sandbox.sdk.claims import HEARTBEAT_SECONDS, Binding, ClaimRequest, delete_claim, wait_until_bound
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.connection import Connection, open_connection
from agent_sandbox.sdk.errors import (
    SandboxCleanupError,
    SandboxConfigError,
    SandboxNotFoundError,
    SandboxNotReadyError,
)
from agent_sandbox.sdk.making import make_sandbox
from agent_sandbox.sdk.options import ConnectionOptions
from agent_sandbox.sdk.results import SandboxChange, SandboxInfo
from agent_sandbox.sdk.sandbox import AsyncSandbox
from agent_sandbox.sdk.status import bound_name, info_of
from agent_sandbox.sdk.watching import ClaimWatch
from agent_sandbox.shielding import unbroken
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxClaimView

Item = TypeVar("Item")
Result = TypeVar("Result")

PAGE_SIZE: Final = 200
"""Claims per request of a listing."""


class AsyncSandboxes:
    """The sandboxes of one namespace.

    >>> async def main() -> None:
    ...     async with AsyncSandboxes() as sandboxes:
    ...         async with sandboxes.use("python-sandbox-template") as sandbox:
    ...             print((await sandbox.run("hostname")).stdout)

    Use it as an async context manager, entered and left in one task. Leaving closes connections only: sandboxes made
    by ``create`` live on until they are deleted or expire.

    Attributes:
        namespace: where sandboxes are made and looked for.
    """

    def __init__(self, namespace: str = "default", options: ConnectionOptions | None = None) -> None:
        """
        Args:
            namespace: where sandboxes are made and looked for.
            options: how to reach the cluster and its sandboxes; by default whatever is there. The namespace counts
                that is given here.
        """
        self.namespace = namespace
        self._options = replace(options or ConnectionOptions(), namespace=namespace)
        self._connection: Connection | None = None
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise SandboxNotReadyError("these sandboxes are open already", reason="Open")
        async with AsyncExitStack() as stack:
            self._connection = await stack.enter_async_context(open_connection(self._options))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        stack, self._stack, self._connection = self._stack, None, None
        if stack is not None:
            await stack.__aexit__(kind, error, trace)

    async def create(
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
    ) -> AsyncSandbox:
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
        request = ClaimRequest(
            template_name=template_name or await self._template_of_pool(warmpool),
            namespace=self.namespace,
            name=name,
            template_namespace=template_namespace,
            warmpool=warmpool,
            ttl=ttl,
            labels=labels or {},
            annotations=annotations or {},
            env=env or {},
            pod_labels=pod_labels or {},
            pod_annotations=pod_annotations or {},
            volume_claim_templates=volume_claim_templates,
        )
        return await make_sandbox(self._open(), request, ready_timeout=ready_timeout)

    @asynccontextmanager
    async def use(
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
    ) -> AsyncIterator[AsyncSandbox]:
        """A sandbox for the length of a block, deleted however the block ends. Arguments as for ``create``.

        With ``heartbeat``, the ttl (60 s if none is given) is extended again and again while the block lasts; a short
        one is then enough for the cluster to delete the sandbox of a program that was killed. It counts from Ready on:
        until then the sandbox has ``ready_timeout`` more.
        """
        pulse = (HEARTBEAT_SECONDS if ttl is None else ttl) if heartbeat else None
        sandbox = await self.create(
            template_name,
            warmpool=warmpool,
            template_namespace=template_namespace,
            labels=labels,
            annotations=annotations,
            env=env,
            pod_labels=pod_labels,
            pod_annotations=pod_annotations,
            volume_claim_templates=volume_claim_templates,
            ttl=ttl if pulse is None else pulse + ready_timeout,
            ready_timeout=ready_timeout,
        )
        try:
            async with AsyncExitStack() as stack:
                if pulse is not None:
                    await stack.enter_async_context(sandbox.heartbeat(pulse))
                yield sandbox
        except BaseException as error:
            try:
                await sandbox.delete()
            except SandboxCleanupError as failure:
                error.add_note(f"Besides, {failure}")
            raise
        await sandbox.delete()

    async def connect(self, name: str, *, ready_timeout: float = 180) -> AsyncSandbox:
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
        kube = self._open().kube
        claim = await self._find_claim(name)
        info = info_of(claim)
        if info.status.state == "Suspended":
            meta = claim.metadata
            binding = Binding(meta.name, meta.namespace, meta.uid, bound_name(claim) or meta.name, ())
        else:
            binding = await wait_until_bound(kube, claim, timeout=ready_timeout)
        if (credentials := self._open().credentials) is not None:
            await credentials.enter(claim)
        return AsyncSandbox(self._open(), claim, binding)

    async def get(self, name: str) -> SandboxInfo:
        """What the cluster says of one sandbox now.

        Args:
            name: name of its claim, or of the Sandbox.

        Raises:
            SandboxNotFoundError: there is none.
        """
        return info_of(await self._find_claim(name))

    async def delete(self, name: str) -> None:
        """Delete a sandbox by the name of its claim or of the Sandbox.

        Raises:
            SandboxNotFoundError: there is none.
            SandboxCleanupError: it could not be deleted.
        """
        await delete_claim(self._open().kube, await self._find_claim(name))

    async def create_many(
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
    ) -> list[AsyncSandbox]:
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
        made: list[AsyncSandbox] = []

        async def make(_: int) -> None:
            made.append(
                await self.create(
                    template_name, warmpool=warmpool, labels=labels, env=env, ttl=ttl, ready_timeout=ready_timeout
                )
            )

        try:
            await run_batch(make, range(count), at_once=at_once)
        except BaseException as error:
            await _delete_all(made, error, at_once)
            raise
        return made

    async def map(
        self,
        work: Callable[[AsyncSandbox, Item], Awaitable[Result]],
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
        results: dict[int, Result] = {}

        async def do(entry: tuple[int, Item]) -> None:
            index, item = entry
            async with self.use(
                template_name,
                warmpool=warmpool,
                labels=labels,
                env=env,
                ttl=ttl,
                heartbeat=heartbeat,
                ready_timeout=ready_timeout,
            ) as sandbox:
                results[index] = await work(sandbox, item)

        await run_batch(do, enumerate(items), at_once=at_once)
        return [results[index] for index in range(len(results))]

    async def list(
        self, *, labels: Mapping[str, str] | None = None, label_selector: str = "", all_namespaces: bool = False
    ) -> AsyncGenerator[SandboxInfo, None]:
        """All sandboxes, page by page, so that ten thousand of them are never in memory at once.

        Args:
            labels: only those with all of these labels.
            label_selector: only those that this selector of Kubernetes matches, for example ``team in (a,b)``.
            all_namespaces: those of other namespaces too.

        Raises:
            SandboxError: the cluster cannot be reached or refuses.
        """
        kube = self._open().kube
        selector = ",".join(part for part in (format_labels(labels or {}), label_selector) if part)
        namespace = None if all_namespaces else self.namespace
        token = ""
        while True:
            try:
                page = await kube.list_page(
                    SANDBOX_CLAIMS, namespace, label_selector=selector, limit=PAGE_SIZE, continue_token=token
                )
            except GoneError as error:
                raise SandboxNotReadyError(
                    "the listing took so long that the API server forgot its place: begin again", reason="Expired"
                ) from error
            except KubeError as error:
                raise explain(error, "listing sandboxes") from error
            for claim in page.items:
                yield info_of(claim)
            token = page.continue_token
            if not token:
                return

    async def watch(
        self, *, labels: Mapping[str, str] | None = None, label_selector: str = "", all_namespaces: bool = False
    ) -> AsyncGenerator[SandboxChange, None]:
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
        watch = ClaimWatch(
            self._open().kube,
            None if all_namespaces else self.namespace,
            ",".join(part for part in (format_labels(labels or {}), label_selector) if part),
        )
        async with aclosing(watch.changes()) as changes:
            async for change in changes:
                yield change

    async def templates(self) -> Sequence[TemplateInfo]:
        """What sandboxes can be made from here, by name.

        Raises:
            SandboxError: the cluster cannot be reached or refuses.
        """
        return await list_templates(self._open().kube, self.namespace)

    async def pools(self) -> Sequence[PoolInfo]:
        """The warm pools of the namespace, by name.

        Raises:
            SandboxError: the cluster cannot be reached or refuses.
        """
        return await list_pools(self._open().kube, self.namespace)

    async def _template_of_pool(self, pool: str | None) -> str:
        if pool in {None, "none", "default"}:
            raise SandboxConfigError("say what to make the sandbox from: template_name, or warmpool with a pool's name")
        assert pool is not None
        return await template_of_pool(self._open().kube, pool, self.namespace)

    async def _find_claim(self, name: str) -> SandboxClaimView:
        kube = self._open().kube
        where = f"{self.namespace}/{name}"
        try:
            return await kube.get(SANDBOX_CLAIMS, name, self.namespace)
        except NotFoundError:
            pass  # the name may be that of a Sandbox which came from a pool
        except KubeError as error:
            raise explain(error, f"looking for sandbox {where}") from error
        try:
            owner = (await kube.get(SANDBOXES, name, self.namespace)).metadata.controller
            if owner is None or owner.kind != SANDBOX_CLAIMS.kind:
                raise SandboxNotFoundError(f"Sandbox {where} belongs to no claim: claim one from its template instead")
            claim = await kube.get(SANDBOX_CLAIMS, owner.name, self.namespace)
        except NotFoundError as error:
            raise SandboxNotFoundError(f"there is no SandboxClaim and no Sandbox {where}") from error
        except KubeError as error:
            raise explain(error, f"looking for sandbox {where}") from error
        if claim.metadata.uid != owner.uid:
            raise SandboxNotFoundError(f"the claim of Sandbox {where} does not exist any more")
        return claim

    def _open(self) -> Connection:
        if self._connection is None:
            raise SandboxNotReadyError("open the sandboxes in an `async with` block first", reason="NotOpen")
        return self._connection

    def __repr__(self) -> str:
        return f"AsyncSandboxes({self.namespace!r})"


async def _delete_all(sandboxes: list[AsyncSandbox], original: BaseException, at_once: int) -> None:
    """Delete them because of an error on its way up; failures to do so become notes on that error."""

    async def delete(sandbox: AsyncSandbox) -> None:
        try:
            await sandbox.delete()
        except SandboxCleanupError as error:
            original.add_note(f"Besides, {error}")

    await unbroken(lambda: run_batch(delete, sandboxes, at_once=at_once))


__all__ = ["AsyncSandboxes"]
