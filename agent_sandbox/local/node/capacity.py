"""What this machine has for its Pods: the ``capacity`` of the Node object, and the limit of a container without one."""

import os
import shutil
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

MAX_PODS: Final = 1000
"""Pods at once. A kubelet says 110; here a Pod costs some 10 MB and no image."""


def read_capacity(state_dir: Path) -> dict[str, Decimal]:
    """Cores, bytes of memory and of the disk that holds the state directory, and Pods."""
    return {
        "cpu": Decimal(os.cpu_count() or 1),
        "memory": Decimal(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "ephemeral-storage": Decimal(shutil.disk_usage(state_dir).total),
        "pods": Decimal(MAX_PODS),
    }


def to_quantities(capacity: Mapping[str, Decimal]) -> dict[str, str]:
    """The wire form: whole units, memory and disk in Ki as a kubelet writes them."""
    return {
        name: f"{int(value) // 1024}Ki" if name in {"memory", "ephemeral-storage"} else str(int(value))
        for name, value in capacity.items()
    }
