#!/usr/bin/env python
"""Writes the OpenAPI definitions of Kubernetes' own types that the embedded API server serves and checks by.

``python hack/generate_builtin_types.py`` writes; ``--check`` writes nothing and exits 1 if the file is not what it
would write. One line per type, so that a change of one type is a change of one line.
"""

import argparse
import json
import sys
from pathlib import Path

from crdgen.builtin_types import definitions

TARGET = (
    Path(__file__).resolve().parent.parent / "agent_sandbox" / "local" / "apiserver" / "schema" / "builtin_types.json"
)


def generated() -> str:
    """The file's contents."""
    lines = [f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}" for name, value in definitions().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    """Write the file, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    check = parser.parse_args().check
    text = generated()
    if not check:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print(f"{TARGET} is stale: run `python hack/generate_builtin_types.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
