"""The client of the seed: one object, one sandbox, gone when its block ends."""

import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from agent_sandbox.kube import KubeClient
from agent_sandbox.sdk.claims import HEARTBEAT_SECONDS, ClaimRequest
from agent_sandbox.sdk.commands import AsyncCommands
from agent_sandbox.sdk.connection import Connection, open_connection
from agent_sandbox.sdk.errors import SandboxCleanupError, SandboxNotReadyError
from agent_sandbox.sdk.files import AsyncFiles
from agent_sandbox.sdk.making import make_sandbox
from agent_sandbox.sdk.options import ConnectionOptions, Mode
from agent_sandbox.sdk.ports import AsyncPorts
from agent_sandbox.sdk.results import ExecutionResult
from agent_sandbox.sdk.sandbox import AsyncSandbox


class AsyncSandboxClient:
    """One sandbox for the length of an ``async with`` block.

    >>> async def main() -> None:
    ...     async with AsyncSandboxClient(template_name="python-sandbox-template") as sandbox:
    ...         result = await sandbox.run("python -c 'print(42)'")
    ...         print(result.stdout)

    Entering makes a claim and waits until the sandbox is ready. However the block ends, by an error, Ctrl-C or
    cancellation included, the claim is deleted and the sandbox with it. Enter and leave in the same task.

    Attributes:
        template_name: the SandboxTemplate.
        namespace: where the sandbox lives.
        gateway_name: the Gateway to go through, if one was named.
        gateway_namespace: its namespace.
        server_port: port of the runtime in the sandbox.
        sandbox_ready_timeout: seconds that the sandbox may take to become ready.
        gateway_ready_timeout: seconds that the Gateway may take to have an address.
        port_forward_ready_timeout: seconds that the tunnel may take to carry bytes.
        base_url: URL of the router; ``api_url`` or found on entering; None if there is no router on the way.
        claim_name: name of the claim; None before entering, unless it was given.
        sandbox_name: name of the Sandbox; None before entering.
        pod_name: name of its Pod; None before entering.
        annotations: annotations of the Sandbox.
        session: the aiohttp session in use; None outside the block.
        port_forward_process: always None: the tunnel is part of this process.
    """

    def __init__(
        self,
        template_name: str,
        namespace: str = "default",
        gateway_name: str | None = None,
        gateway_namespace: str = "default",
        api_url: str | None = None,
        server_port: int = 8888,
        sandbox_ready_timeout: float = 180,
        gateway_ready_timeout: float = 180,
        port_forward_ready_timeout: float = 30,
        *,
        mode: Mode = "auto",
        warmpool: str | None = None,
        template_namespace: str | None = None,
        claim_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        pod_labels: Mapping[str, str] | None = None,
        pod_annotations: Mapping[str, str] | None = None,
        volume_claim_templates: Sequence[Mapping[str, Any]] = (),
        ttl: float | None = None,
        heartbeat: bool = False,
        kube: KubeClient | None = None,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        local: bool | None = None,
        state_dir: str | Path | None = None,
        router_namespace: str = "agent-sandbox-system",
        router_token: str | None = None,
        access_key_file: str | Path | None = None,
        router_service_account: str | None = None,
        router_domain: str | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        trust_env: bool = False,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        """
        Args:
            template_name: the SandboxTemplate to make the sandbox from.
            namespace: where the sandbox lives.
            gateway_name: go through this Gateway.
            gateway_namespace: its namespace.
            api_url: go to the router at this URL.
            server_port: port of the runtime in the sandbox.
            sandbox_ready_timeout: seconds.
            gateway_ready_timeout: seconds.
            port_forward_ready_timeout: seconds.
            mode: the way to the sandbox, see ``Mode``; chosen by what is given and found if ``auto``.
            warmpool: ``none`` starts cold, a name takes from that pool; unset takes from any pool of the template.
            template_namespace: namespace of the template if it is another one.
            claim_name: name of the claim; made up if unset.
            labels: labels of the claim.
            annotations: annotations of the claim.
            env: environment variables of the sandbox, if the template allows them.
            pod_labels: labels to add to the Pod.
            pod_annotations: annotations to add to the Pod.
            volume_claim_templates: volumes of its own, as in a StatefulSet, if the template allows them.
            ttl: seconds after which the cluster deletes the sandbox even if this program is dead by then.
            heartbeat: extend the ttl (60 s if none is given) again and again while the block lasts, so that a short one
                suffices. It counts from Ready on: until then the sandbox has ``sandbox_ready_timeout`` more.
            kube: a client of the API server to use instead of a kubeconfig.
            kubeconfig: path of the kubeconfig.
            context: context in the kubeconfig.
            local: True insists on the local stack, False never uses it.
            state_dir: state directory of the local stack.
            router_namespace: namespace of the router's Service.
            router_token: credential for the router, instead of what the client obtains by itself.
            access_key_file: file with the key that this client signs its credentials with; see ``ConnectionOptions``.
            router_service_account: account whose Kubernetes token a router may want; see ``ConnectionOptions``.
            router_domain: domain of the router's hosts, for ``ports.signed_url``.
            headers: sent with every request to the sandbox.
            tls: trust and client certificate for https to the router.
            proxy: URL of an HTTP proxy.
            trust_env: take the proxy from the environment.
            session: an aiohttp session to use and to leave open.
        """
        self.template_name = template_name
        self.namespace = namespace
        self.gateway_name = gateway_name
        self.gateway_namespace = gateway_namespace
        self.server_port = server_port
        self.sandbox_ready_timeout = sandbox_ready_timeout
        self.gateway_ready_timeout = gateway_ready_timeout
        self.port_forward_ready_timeout = port_forward_ready_timeout
        self.base_url: str | None = api_url
        self.claim_name: str | None = claim_name
        self.sandbox_name: str | None = None
        self.pod_name: str | None = None
        self.annotations: dict[str, str] = {}
        self.session: aiohttp.ClientSession | None = None
        self.port_forward_process: None = None
        self._pulse = (HEARTBEAT_SECONDS if ttl is None else ttl) if heartbeat else None
        self._request = ClaimRequest(
            template_name=template_name,
            namespace=namespace,
            name=claim_name,
            template_namespace=template_namespace,
            warmpool=warmpool,
            ttl=ttl if self._pulse is None else self._pulse + sandbox_ready_timeout,
            labels=labels or {},
            annotations=annotations or {},
            env=env or {},
            pod_labels=pod_labels or {},
            pod_annotations=pod_annotations or {},
            volume_claim_templates=volume_claim_templates,
        )
        self._options = ConnectionOptions(
            mode=mode,
            api_url=api_url,
            gateway_name=gateway_name,
            gateway_namespace=gateway_namespace,
            gateway_ready_timeout=gateway_ready_timeout,
            port_forward_ready_timeout=port_forward_ready_timeout,
            server_port=server_port,
            router_namespace=router_namespace,
            namespace=namespace,
            router_token=router_token,
            access_key_file=access_key_file,
            router_service_account=router_service_account,
            router_domain=router_domain,
            kube=kube,
            kubeconfig=kubeconfig,
            context=context,
            local=local,
            state_dir=state_dir,
            headers=headers or {},
            tls=tls,
            proxy=proxy,
            trust_env=trust_env,
            session=session,
        )
        self._sandbox: AsyncSandbox | None = None
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise SandboxNotReadyError(
                "this client is open already: use another one for another sandbox", reason="Open"
            )
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(open_connection(self._options))
            sandbox = await make_sandbox(connection, self._request, ready_timeout=self.sandbox_ready_timeout)
            self._delete_at_the_end(stack, sandbox)
            await sandbox.refresh()
            if self._pulse is not None:
                await stack.enter_async_context(sandbox.heartbeat(self._pulse))
            self._show(connection, sandbox)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is None:
            return
        self._sandbox = self.session = None
        await stack.__aexit__(kind, error, trace)

    @property
    def sandbox(self) -> AsyncSandbox:
        """The handle on the sandbox, with everything that this class has no method for.

        Raises:
            SandboxNotReadyError: outside the block.
        """
        return self._open_sandbox()

    @property
    def commands(self) -> AsyncCommands:
        """See ``AsyncSandbox.commands``."""
        return self._open_sandbox().commands

    @property
    def files(self) -> AsyncFiles:
        """See ``AsyncSandbox.files``."""
        return self._open_sandbox().files

    @property
    def ports(self) -> AsyncPorts:
        """See ``AsyncSandbox.ports``."""
        return self._open_sandbox().ports

    async def run(self, command: str, timeout: float | None = 60) -> ExecutionResult:
        """See ``AsyncSandbox.run``."""
        return await self._open_sandbox().run(command, timeout)

    async def write(self, path: str, content: bytes | str, timeout: float | None = 60) -> None:
        """See ``AsyncSandbox.write``."""
        await self._open_sandbox().write(path, content, timeout)

    async def read(self, path: str, timeout: float | None = 60) -> bytes:
        """See ``AsyncSandbox.read``."""
        return await self._open_sandbox().read(path, timeout)

    async def is_ready(self) -> bool:
        """True if the sandbox answers now; False outside the block."""
        return self._sandbox is not None and await self._sandbox.is_ready()

    def _show(self, connection: Connection, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox
        self.base_url = connection.base_url
        self.session = connection.route.session
        self.claim_name = sandbox.claim_name
        self.sandbox_name = sandbox.sandbox_name
        self.pod_name = sandbox.pod_name
        self.annotations = sandbox.annotations

    def _delete_at_the_end(self, stack: AsyncExitStack, sandbox: AsyncSandbox) -> None:
        async def delete(
            kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            try:
                await sandbox.delete()
            except SandboxCleanupError as failure:
                if error is None:
                    raise
                error.add_note(f"Besides, {failure}")

        stack.push_async_exit(delete)

    def _open_sandbox(self) -> AsyncSandbox:
        if self._sandbox is None:
            raise SandboxNotReadyError(
                "Sandbox is not ready for communication: use the client in a with block", reason="NotOpen"
            )
        return self._sandbox
