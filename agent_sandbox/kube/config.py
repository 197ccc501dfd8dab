"""Finds the API server and the credentials for it: in a Pod, in a kubeconfig, or as told.

kubernetes_asyncio reads kubeconfigs (contexts, exec plugins, cloud tokens) because it does that well. It costs half a
second and 70 MB to import, so it is loaded by the first ``connect`` that needs it, in a thread, and by nobody else.
"""

import os
import ssl
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube.client import KubeClient
from agent_sandbox.kube.credentials import Credentials, StaticToken, TokenFile
from agent_sandbox.kube.errors import ConfigError
from agent_sandbox.kube.http import AiohttpTransport

_LIBRARY_FAILURES: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What the library raises beside its own exception: a plugin that cannot be run, a file that is YAML, but no
kubeconfig.
"""

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


async def connect(
    kubeconfig: str | Path | None = None,
    context: str | None = None,
    *,
    field_manager: str = "agent-sandbox",
    request_timeout: float = 30.0,
    clock: Clock | None = None,
) -> KubeClient:
    """Connect as kubectl would: the given file, else ``$KUBECONFIG``, else the Pod's own account, else
    ``~/.kube/config``.

    Raises:
        ConfigError: none of these exists, or the one chosen cannot be used.
    """
    clock = clock or SystemClock()
    if kubeconfig is None and context is None and not os.environ.get("KUBECONFIG") and in_cluster():
        transport = await _in_cluster_transport(clock)
    else:
        transport = await _kubeconfig_transport(kubeconfig, context)
    return KubeClient(transport, field_manager=field_manager, request_timeout=request_timeout, clock=clock)


async def connect_to(
    url: str,
    *,
    token: str | None = None,
    token_file: str | Path | None = None,
    ca_file: str | Path | None = None,
    client_certificate: tuple[str | Path, str | Path] | None = None,
    insecure: bool = False,
    field_manager: str = "agent-sandbox",
    request_timeout: float = 30.0,
    clock: Clock | None = None,
) -> KubeClient:
    """Connect to a known server, without any kubeconfig.

    Args:
        url: the server, for example ``https://127.0.0.1:6443``.
        token: bearer token.
        token_file: a file with the token, read again each minute and on 401; used if no token is given.
        ca_file: whom to trust, in PEM; the system's trust by default.
        client_certificate: files of certificate and key.
        insecure: trust everybody. Only for tests.
        field_manager: as in ``KubeClient``.
        request_timeout: as in ``KubeClient``.
        clock: as in ``KubeClient``.

    Raises:
        ConfigError: a file cannot be read.
    """
    clock = clock or SystemClock()
    credentials: Credentials = StaticToken(token)
    if token is None and token_file is not None:
        credentials = TokenFile(Path(token_file), clock=clock)
    tls = None
    if url.startswith("https:"):
        tls = await anyio.to_thread.run_sync(_tls_context, ca_file, client_certificate, insecure)
    transport = AiohttpTransport(url, credentials=credentials, tls=tls)
    return KubeClient(transport, field_manager=field_manager, request_timeout=request_timeout, clock=clock)


def in_cluster() -> bool:
    """True inside a Pod that has a service account."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()


def _tls_context(
    ca_file: str | Path | None, client_certificate: tuple[str | Path, str | Path] | None, insecure: bool
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if client_certificate is not None:
            context.load_cert_chain(*client_certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the TLS files {ca_file} {client_certificate or ''} cannot be used: {error}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _in_cluster_transport(clock: Clock) -> AiohttpTransport:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if ":" in host:
        host = f"[{host}]"
    tls = await anyio.to_thread.run_sync(_tls_context, SERVICE_ACCOUNT / "ca.crt", None, False)
    credentials = TokenFile(SERVICE_ACCOUNT / "token", clock=clock)
    return AiohttpTransport(f"https://{host}:{port}", credentials=credentials, tls=tls)


async def _kubeconfig_transport(kubeconfig: str | Path | None, context: str | None) -> AiohttpTransport:
    source = str(kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config")
    if not await anyio.to_thread.run_sync(_any_exists, source):
        raise ConfigError(f"there is no kubeconfig {source}: name one, or set KUBECONFIG")
    library = await anyio.to_thread.run_sync(_load_library)
    import yaml  # the library has loaded it

    configuration = library.client.Configuration()
    try:
        loader = await library.config.load_kube_config(
            config_file=str(kubeconfig) if kubeconfig else None,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (library.config.ConfigException, yaml.YAMLError, *_LIBRARY_FAILURES) as error:
        wanted = f", context {context}" if context else ""
        raise ConfigError(f"the kubeconfig {source}{wanted} cannot be used: {error}") from error
    tls = await anyio.to_thread.run_sync(_tls_of, configuration)
    return AiohttpTransport(
        configuration.host,
        credentials=_LibraryCredentials(loader, configuration, source, library.config.ConfigException),
        tls=tls,
        proxy=configuration.proxy or None,
        server_hostname=configuration.tls_server_name or None,
    )


def _any_exists(paths: str) -> bool:
    """Whether one of several files exists, as ``$KUBECONFIG`` lists them."""
    return any(Path(path).expanduser().exists() for path in paths.split(os.pathsep) if path)


def _load_library() -> Any:
    import kubernetes_asyncio.client
    import kubernetes_asyncio.config

    return kubernetes_asyncio


def _tls_of(configuration: Any) -> ssl.SSLContext | None:
    if not configuration.host.startswith("https:"):
        return None
    certificate = (configuration.cert_file, configuration.key_file) if configuration.cert_file else None
    return _tls_context(configuration.ssl_ca_cert, certificate, insecure=not configuration.verify_ssl)


class _LibraryCredentials:
    """Asks kubernetes_asyncio, which knows exec plugins, providers of clouds, and files of tokens."""

    def __init__(self, loader: Any, configuration: Any, source: str, failure: type[Exception]) -> None:
        self._loader = loader
        self._configuration = configuration
        self._source = source
        self._failure = failure
        self._lock = anyio.Lock()

    async def authorization(self) -> str | None:
        """The header's value; that a token has expired is learnt from the server's 401."""
        return self._header()

    async def refresh(self) -> bool:
        """Run the plugin, or read the file, again.

        Raises:
            ConfigError: the plugin fails, or the file cannot be used any more.
        """
        before = self._header()
        async with self._lock:
            if self._header() == before:  # else another request has refreshed meanwhile
                try:
                    await self._loader.load_and_set(self._configuration)
                except (self._failure, *_LIBRARY_FAILURES) as error:
                    # Not the library's own exception: watchers and controllers retry what is a KubeError.
                    raise ConfigError(f"the credentials of {self._source} cannot be renewed: {error}") from error
        return self._header() != before

    def _header(self) -> str | None:
        value: str | None = self._configuration.api_key.get("BearerToken")
        return value
