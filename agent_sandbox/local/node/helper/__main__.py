"""Entry of the helper process, run by path: it must not import the packages above it, which are large."""

import sys
from pathlib import Path
from types import ModuleType


def _shallow_packages() -> None:
    """Make ``agent_sandbox.local.node`` importable as empty packages, without running their ``__init__`` modules."""
    root = Path(__file__).resolve().parents[4]
    dotted = ""
    for part in ("agent_sandbox", "local", "node"):
        dotted = f"{dotted}.{part}" if dotted else part
        package = ModuleType(dotted)
        package.__path__ = [str(root.joinpath(*dotted.split(".")))]
        sys.modules[dotted] = package


if __name__ == "__main__":
    _shallow_packages()
    from agent_sandbox.local.node.helper.server import main

    main(*(int(number) for number in sys.argv[1:]))
