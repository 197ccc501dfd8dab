"""What the pages of the site tell people to type works on the local stack, page by page, in order."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_sandbox.testing.pages import Block, blocks_of

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
Run = Callable[..., object]

pytestmark = [
    pytest.mark.node,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="the pages say kubectl, and it is not on PATH"),
]


def pages() -> list[Path]:
    """The pages with commands for the local stack that have no test of their own."""
    written = [DOCS / "index.md", DOCS / "start.md", *sorted((DOCS / "guides").glob("*.md"))]
    written += sorted((DOCS / "reference/CRDs").glob("*.md")) + sorted((DOCS / "reference/python-sdk").glob("*.md"))
    return [page for page in written if any(line for line in scripts(page))]


def scripts(page: Path) -> Iterator[str]:
    """The page's blocks as pieces of one shell script: manifests are applied, programs run."""
    for block in blocks_of(page):
        if block.local and (text := script_of(block)):
            yield text


def script_of(block: Block) -> str:
    """One block; what is only looked at is nothing to run."""
    match block.language:
        case "sh":
            return block.text
        case "python":
            return f"python - <<'PROGRAM'\n{block.text}PROGRAM\n"
        case "yaml" if re.search(r"^kind: ", block.text, re.MULTILINE):
            return f"kubectl apply -f - <<'MANIFEST'\n{block.text}MANIFEST\n"
    return ""


@pytest.mark.timeout(1200)
def test_every_page_works_as_written(run: Run, environment: dict[str, str]) -> None:
    """One stack with the sample template and pool; for each page a shell of its own, and nothing left of it after."""
    home = Path(environment["HOME"])
    run("agent-sandbox", "local", "up", "--background", "--quiet", "--api-port", "0", "--router-port", "0")
    run(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        "agent-sandbox apply --wait -f config/samples/sandboxtemplate.yaml -f config/samples/sandboxwarmpool.yaml",
    )
    for page in pages():
        (home / "page.sh").write_text(
            "export KUBECONFIG=$(agent-sandbox local kubeconfig)\n"
            + "\n".join(scripts(page))
            + "\nkubectl delete sandboxclaims,swp,sandboxes --all --wait=false\n"
            + "kubectl apply -f config/samples/sandboxwarmpool.yaml\n"
        )
        run("bash", "-euo", "pipefail", str(home / "page.sh"))
