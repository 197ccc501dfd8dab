"""TLS before the router: certificates that are replaced while it runs, and, where wanted, clients that show their own.

In: paths of PEM files. Out: one SSLContext for the listener. When the files change, new connections get the new
certificate; one that is no good (half written, not matching its key) is refused and the old one stays.
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from agent_sandbox.router.errors import RouterConfigError

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
"""Seconds between two looks at the files: Kubernetes swaps a mounted Secret within about a minute anyway."""


class Certificate:
    """The router's certificate.

    Args:
        client_ca: authorities that clients' certificates must come from; None asks for no certificate.
        reloaded: told of each attempt to load changed files, and whether they were good.

    Raises:
        RouterConfigError: the files cannot be read or do not belong together.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        client_ca: Path | None = None,
        reloaded: Callable[[bool], None] = lambda good: None,
    ) -> None:
        self._reloaded = reloaded
        self._certificate = certificate
        self._key = key
        self._seen = self._look_blocking()
        self.context = self._context(client_ca)

    async def follow(self) -> None:
        """Load the files again when they change, until cancelled."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            await anyio.to_thread.run_sync(self.refresh_blocking)

    def refresh_blocking(self) -> None:
        """Load the files again if they changed."""
        try:
            seen = self._look_blocking()
            if seen == self._seen:
                return
            # A context of its own first: load_cert_chain leaves a mixture behind when certificate and key differ.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except RouterConfigError as error:
            logger.warning("the old certificate stays in use: %s", error)
            self._reloaded(False)
            return
        self._seen = seen
        self._reloaded(True)
        logger.info("the certificate %s was loaded again", self._certificate)

    def _context(self, client_ca: Path | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load(context)
        if client_ca is not None:
            try:
                context.load_verify_locations(client_ca)
            except OSError as error:
                raise RouterConfigError(f"cannot use the client authorities {client_ca}: {error}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certificate, self._key)
        except OSError as error:
            detail = f"cannot use the certificate {self._certificate} with the key {self._key}: {error}"
            raise RouterConfigError(detail) from error

    def _look_blocking(self) -> tuple[int, ...]:
        try:
            states = [path.stat() for path in (self._certificate, self._key)]
        except OSError as error:
            raise RouterConfigError(f"cannot read the certificate or its key: {error}") from error
        return tuple(number for state in states for number in (state.st_mtime_ns, state.st_ino))
