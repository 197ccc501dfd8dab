"""The generated reference pages under docs/reference/api."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_pages_are_what_the_crds_say() -> None:
    command = [sys.executable, str(ROOT / "hack" / "generate_api_docs.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_each_kind_has_a_page_with_its_fields_and_an_example() -> None:
    page = (ROOT / "docs" / "reference" / "api" / "SandboxClaim.md").read_text()
    assert "| `sandboxTemplateRef.name` | string | required |" in page
    assert "kind: SandboxClaim" in page
