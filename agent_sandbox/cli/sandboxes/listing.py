"""How a sandbox is shown: as a row, as data, as a name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agent_sandbox.cli.sandboxes.tables import age, until

if TYPE_CHECKING:
    from agent_sandbox.sdk import SandboxInfo

KIND: Final = "sandboxclaim.extensions.agents.x-k8s.io"
"""What kubectl calls it, so that ``kubectl delete $(agent-sandbox ls -o name)`` works."""

HEADER: Final = ("NAME", "STATUS", "SANDBOX", "TEMPLATE", "AGE", "EXPIRES")
WIDE: Final = ("REASON", "IP")
WIDTHS: Final = (22, 9, 30, 25, 7, 7)
"""Of the columns while they are watched, when nobody knows what comes."""


def name_of(info: SandboxInfo) -> str:
    """``kind/name``."""
    return f"{KIND}/{info.claim_name}"


def row_of(
    info: SandboxInfo,
    *,
    now: datetime | None = None,
    namespaced: bool = False,
    wide: bool = False,
    labels: bool = False,
) -> list[str]:
    """One row of the table that ``header_of`` begins."""
    moment = now or datetime.now(UTC)
    status = info.status
    cells = [
        info.claim_name,
        status.state,
        info.sandbox_name or "<none>",
        info.template_name,
        age(status.created, moment),
        until(status.expires, moment),
    ]
    if namespaced:
        cells.insert(0, info.namespace)
    if wide:
        cells += [status.reason or "<none>", ",".join(status.pod_ips) or "<none>"]
    if labels:
        cells.append(",".join(f"{key}={value}" for key, value in sorted(info.labels.items())) or "<none>")
    return cells


def header_of(*, namespaced: bool = False, wide: bool = False, labels: bool = False) -> list[str]:
    """The names of the columns."""
    return [*(["NAMESPACE"] if namespaced else []), *HEADER, *(WIDE if wide else ()), *(["LABELS"] if labels else [])]


def data_of(info: SandboxInfo) -> dict[str, Any]:
    """For programs; the names do not change."""
    status = info.status
    return {
        "name": info.claim_name,
        "namespace": info.namespace,
        "state": status.state,
        "reason": status.reason,
        "message": status.message,
        "sandbox": info.sandbox_name,
        "template": info.template_name,
        "podIPs": list(status.pod_ips),
        "created": _text(status.created),
        "expires": _text(status.expires),
        "labels": dict(info.labels),
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
