"""What the documents tell people to type works as written."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
REPOSITORY = Path(__file__).resolve().parents[2]


def shell_blocks(document: Path, heading: str) -> list[str]:
    """The shell blocks below a heading of a Markdown file, up to the next heading of the same depth."""
    text = document.read_text()
    match = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    assert match is not None, f"{document.name} has no heading {heading!r}"
    return re.findall(r"^```sh\n(.*?)^```", match.group(2), re.MULTILINE | re.DOTALL)


@pytest.mark.node
@pytest.mark.timeout(120)
def test_the_five_minutes_of_the_readme_work_as_written(run: Run, environment: dict[str, str]) -> None:
    """All commands of the section, in order, in one shell; kubectl's where there is a kubectl."""
    environment |= {"AGENT_SANDBOX_API_PORT": "0", "AGENT_SANDBOX_ROUTER_PORT": "0"}
    lines = "".join(shell_blocks(REPOSITORY / "README.md", "Five minutes")).splitlines()
    if shutil.which("kubectl") is None:
        lines = [line for line in lines if not line.startswith("kubectl")]

    said = run("bash", "-euo", "pipefail", "-c", "\n".join(lines), timeout=110).stdout

    assert "42\n" in said
    assert "Hello\n" in said
    assert "templates   1, warm pools 1" in said


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link of every Markdown file names a file that is in the repository."""
    broken = [
        f"{document.relative_to(REPOSITORY)}: {target}"
        for document in REPOSITORY.rglob("*.md")
        if not any(part.startswith(".") for part in document.relative_to(REPOSITORY).parts)
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())
        if not (document.parent / target).exists()
    ]

    assert broken == []
