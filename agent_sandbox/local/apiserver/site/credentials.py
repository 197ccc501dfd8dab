"""The files that a client needs to reach and trust the server: authority, certificate, token, kubeconfig.

They are made once per state folder and reused, so that a restart invalidates no client. All are readable by their
owner only.
"""

import hmac
import os
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent_sandbox.local.apiserver.http import UserInfo
from agent_sandbox.local.apiserver.site.certificates import make_authority, make_server_certificate

CONTEXT = "agent-sandbox"
_ADMIN = UserInfo("agent-sandbox-admin", ("system:masters", "system:authenticated"))


@dataclass(frozen=True)
class SiteCredentials:
    """Certificates and the token of one site.

    Attributes:
        folder: where the files are.
        token: the bearer token; whoever has it may do everything.
    """

    folder: Path
    token: str

    @property
    def ca_file(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def token_file(self) -> Path:
        """The token alone."""
        return self.folder / "token"

    @property
    def kubeconfig_file(self) -> Path:
        """The kubeconfig, once it was written."""
        return self.folder / "kubeconfig"

    @classmethod
    def ensure(cls, folder: Path, address: str) -> "SiteCredentials":
        """Read the files, and make those that are missing. Blocks: call it in a thread.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / "ca.crt").exists() or not (folder / "ca.key").exists():
            authority, key = make_authority()
            write_private(folder / "ca.key", key)
            write_private(folder / "ca.crt", authority)
            (folder / "server.crt").unlink(missing_ok=True)
        if not (folder / "server.crt").exists() or not (folder / "server.key").exists():
            certificate, key = make_server_certificate(
                (folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes(), address
            )
            write_private(folder / "server.key", key)
            write_private(folder / "server.crt", certificate)
        if not (folder / "token").exists():
            write_private(folder / "token", secrets.token_urlsafe(32).encode())
        return cls(folder, (folder / "token").read_text().strip())

    def server_context(self) -> ssl.SSLContext:
        """The TLS settings of the server. Blocks: call it in a thread."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        return context

    def authenticate(self, token: str) -> UserInfo | None:
        """Who a token belongs to; None for nobody."""
        # A header may hold any bytes; what is no UTF-8 is a wrong token like others.
        offered = token.encode("utf-8", "surrogatepass")
        return _ADMIN if hmac.compare_digest(offered, self.token.encode()) else None

    def write_kubeconfig(self, url: str) -> Path:
        """Write the kubeconfig for a server at a URL. Blocks: call it in a thread."""
        write_private(self.kubeconfig_file, yaml.safe_dump(self.kubeconfig(url), sort_keys=False).encode())
        return self.kubeconfig_file

    def kubeconfig(self, url: str) -> dict[str, Any]:
        """A kubeconfig that names the authority's file and carries the token."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": CONTEXT,
            "clusters": [{"name": CONTEXT, "cluster": {"server": url, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": CONTEXT, "user": {"token": self.token}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}}],
        }


def write_private(path: Path, content: bytes) -> None:
    """Replace a file at once, with access for its owner only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
