"""Serving certificates that are replaced while we serve.

In: the files of a certificate and its key. Out: one ``SSLContext`` whose new connections use the newest pair that fits
together. Kubernetes replaces mounted Secrets by swapping a symlink of their directory, which file watchers miss; so the
contents are compared, every few seconds.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.runtime.metrics import Metrics

log = structlog.get_logger(__name__)

POLL: Final = 10.0
"""Seconds between two looks. A rotation overlaps by hours; controller-runtime looks every 10 s as well."""


@dataclass(frozen=True)
class CertificateFiles:
    """Where the pair is, in PEM."""

    certificate: Path
    key: Path

    @classmethod
    def in_directory(cls, directory: str | Path) -> "CertificateFiles":
        """``tls.crt`` and ``tls.key``, as a mounted Secret of type kubernetes.io/tls has them."""
        return cls(Path(directory) / "tls.crt", Path(directory) / "tls.key")


class CertificateWatcher:
    """Keeps a context up to date.

    Guarantees:
        ``context`` always serves a pair that fits together: a new pair is tried on a context of its own first.
    Errors:
        ``load`` raises if there is no usable pair at the start. Later failures are logged and counted, and the old
        pair stays.
    """

    def __init__(self, files: CertificateFiles, *, clock: Clock, metrics: Metrics, poll: float = POLL) -> None:
        self.files = files
        self.context = _server_context()
        self._clock = clock
        self._metrics = metrics
        self._poll = poll
        # The contents that `context` serves; empty before load().
        self._served: tuple[bytes, bytes] | tuple[()] = ()

    async def load(self) -> None:
        """Read the pair for the first time.

        Raises:
            OSError: a file cannot be read.
            ssl.SSLError: the pair does not fit together.
        """
        await self._reload()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Load, then follow the files until cancelled."""
        if not self._served:
            await self.load()
        task_status.started()
        while True:
            await self._clock.sleep(self._poll)
            try:
                await self._reload()
            except (OSError, ssl.SSLError) as error:
                log.warning("the new certificate cannot be used, the old one stays", error=str(error))

    async def _reload(self) -> None:
        try:
            contents = await anyio.to_thread.run_sync(self._read)
            if contents == self._served:
                return
            self._metrics.certificate_reads.inc()
            await anyio.to_thread.run_sync(self._load)
        except (OSError, ssl.SSLError):
            self._metrics.certificate_errors.inc()
            raise
        if self._served:
            log.info("a new certificate is served", certificate=str(self.files.certificate))
        self._served = contents

    def _read(self) -> tuple[bytes, bytes]:
        return self.files.certificate.read_bytes(), self.files.key.read_bytes()

    def _load(self) -> None:
        for context in (_server_context(), self.context):
            context.load_cert_chain(self.files.certificate, self.files.key)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
