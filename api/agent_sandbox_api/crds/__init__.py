"""Our CustomResourceDefinitions as data, the same in a checkout and in an installed wheel.

The JSON files beside this module are generated from the models by ``hack/generate_crds.py``, like ``config/crd``.
"""

from importlib.resources import files
from typing import Any

import msgspec


def load_crds() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of all our kinds, sorted by name, ready to be applied.

    Each call returns fresh objects, which the caller may change.
    """
    found: list[dict[str, Any]] = [
        msgspec.json.decode(entry.read_bytes()) for entry in files(__name__).iterdir() if entry.name.endswith(".json")
    ]
    return sorted(found, key=lambda crd: str(crd["metadata"]["name"]))
