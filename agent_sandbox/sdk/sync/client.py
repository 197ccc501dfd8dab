"""The client of the seed: one object, one sandbox, gone when its block ends.

Generated from ``agent_sandbox/sdk/client.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""


# ruff: noqa: SLF001 - a view and what it shows are one

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from agent_sandbox.kube import KubeClient
from agent_sandbox.sdk.client import AsyncSandboxClient
from agent_sandbox.sdk.facade import ContextFacade
from agent_sandbox.sdk.options import Mode
from agent_sandbox.sdk.results import ExecutionResult
from agent_sandbox.sdk.sync.commands import Commands
from agent_sandbox.sdk.sync.files import Files
from agent_sandbox.sdk.sync.ports import Ports
from agent_sandbox.sdk.sync.sandbox import Sandbox


class SandboxClient(ContextFacade[AsyncSandboxClient]):
    """One sandbox for the length of a ``with`` block.

    >>> def main() -> None:
    ...     with SandboxClient(template_name="python-sandbox-template") as sandbox:
    ...         result = sandbox.run("python -c 'print(42)'")
    ...         print(result.stdout)

    Entering makes a claim and waits until the sandbox is ready. However the block ends, by an error, Ctrl-C or
    cancellation included, the claim is deleted and the sandbox with it.

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

    _core: ClassVar[type[AsyncSandboxClient]] = AsyncSandboxClient

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
        self._inner = self._core(
            template_name,
            namespace,
            gateway_name,
            gateway_namespace,
            api_url,
            server_port,
            sandbox_ready_timeout,
            gateway_ready_timeout,
            port_forward_ready_timeout,
            mode=mode,
            warmpool=warmpool,
            template_namespace=template_namespace,
            claim_name=claim_name,
            labels=labels,
            annotations=annotations,
            env=env,
            pod_labels=pod_labels,
            pod_annotations=pod_annotations,
            volume_claim_templates=volume_claim_templates,
            ttl=ttl,
            heartbeat=heartbeat,
            kube=kube,
            kubeconfig=kubeconfig,
            context=context,
            local=local,
            state_dir=state_dir,
            router_namespace=router_namespace,
            router_token=router_token,
            access_key_file=access_key_file,
            router_service_account=router_service_account,
            router_domain=router_domain,
            headers=headers,
            tls=tls,
            proxy=proxy,
            trust_env=trust_env,
            session=session,
        )

    @property
    def template_name(self) -> str:
        """The SandboxTemplate."""
        return self._inner.template_name

    @property
    def namespace(self) -> str:
        """Where the sandbox lives."""
        return self._inner.namespace

    @property
    def gateway_name(self) -> str | None:
        """The Gateway to go through, if one was named."""
        return self._inner.gateway_name

    @property
    def gateway_namespace(self) -> str:
        """Its namespace."""
        return self._inner.gateway_namespace

    @property
    def server_port(self) -> int:
        """Port of the runtime in the sandbox."""
        return self._inner.server_port

    @property
    def sandbox_ready_timeout(self) -> float:
        """Seconds that the sandbox may take to become ready."""
        return self._inner.sandbox_ready_timeout

    @property
    def gateway_ready_timeout(self) -> float:
        """Seconds that the Gateway may take to have an address."""
        return self._inner.gateway_ready_timeout

    @property
    def port_forward_ready_timeout(self) -> float:
        """Seconds that the tunnel may take to carry bytes."""
        return self._inner.port_forward_ready_timeout

    @property
    def base_url(self) -> str | None:
        """URL of the router; ``api_url`` or found on entering; None if there is no router on the way."""
        return self._inner.base_url

    @property
    def claim_name(self) -> str | None:
        """Name of the claim; None before entering, unless it was given."""
        return self._inner.claim_name

    @property
    def sandbox_name(self) -> str | None:
        """Name of the Sandbox; None before entering."""
        return self._inner.sandbox_name

    @property
    def pod_name(self) -> str | None:
        """Name of its Pod; None before entering."""
        return self._inner.pod_name

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations of the Sandbox."""
        return self._inner.annotations

    @property
    def session(self) -> aiohttp.ClientSession | None:
        """The aiohttp session in use; None outside the block."""
        return self._inner.session

    @property
    def port_forward_process(self) -> None:
        """Always None: the tunnel is part of this process."""
        return self._inner.port_forward_process

    @property
    def sandbox(self) -> Sandbox:
        """The handle on the sandbox, with everything that this class has no method for.

        Raises:
            SandboxNotReadyError: outside the block.
        """
        return Sandbox._around(self._inner.sandbox)

    @property
    def commands(self) -> Commands:
        """See ``Sandbox.commands``."""
        return Commands._around(self._inner.commands)

    @property
    def files(self) -> Files:
        """See ``Sandbox.files``."""
        return Files._around(self._inner.files)

    @property
    def ports(self) -> Ports:
        """See ``Sandbox.ports``."""
        return Ports._around(self._inner.ports)

    def run(self, command: str, timeout: float | None = 60) -> ExecutionResult:
        """See ``Sandbox.run``."""
        return self._run(lambda job: self._inner.run(command, timeout))

    def write(self, path: str, content: bytes | str, timeout: float | None = 60) -> None:
        """See ``Sandbox.write``."""
        return self._run(lambda job: self._inner.write(path, content, timeout))

    def read(self, path: str, timeout: float | None = 60) -> bytes:
        """See ``Sandbox.read``."""
        return self._run(lambda job: self._inner.read(path, timeout))

    def is_ready(self) -> bool:
        """True if the sandbox answers now; False outside the block."""
        return self._run(lambda job: self._inner.is_ready())


__all__ = ["SandboxClient"]
