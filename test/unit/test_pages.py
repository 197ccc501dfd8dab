"""What the pages show is true of the code: manifests, fields, programs, targets of make."""

import ast
import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from agent_sandbox.kube import ApiError, KubeClient
from agent_sandbox.testing import InMemoryApiServer
from agent_sandbox.testing.pages import Block, blocks_of
from agent_sandbox_api.agents.v1alpha1 import Sandbox
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim, SandboxTemplate, SandboxWarmPool
from agent_sandbox_api.names import AGENTS_GROUP
from agent_sandbox_controllers.vocabulary import Reason

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
KINDS: tuple[type[BaseModel], ...] = (Sandbox, SandboxTemplate, SandboxClaim, SandboxWarmPool)


def pages() -> list[Path]:
    """The pages of the site that people write; docs/ja is held to the English ones by its own test."""
    written = [page for page in sorted(DOCS.rglob("*.md")) if page.parent.name not in {"api", "runbooks"}]
    return [page for page in written if page.relative_to(DOCS).parts[0] != "ja"]


def blocks(language: str) -> list[Any]:
    """All blocks of a language, each with the name of its page."""
    return [
        pytest.param(block, id=f"{page.relative_to(DOCS)}-{number}")
        for page in pages()
        for number, block in enumerate(blocks_of(page))
        if block.language == language
    ]


async def test_the_api_server_takes_every_manifest_and_knows_all_its_fields() -> None:
    """Of our kinds; a real server is asked about all kinds by test/envtest/test_pages_on_a_real_server.py."""
    refused = []
    async with InMemoryApiServer(crds=load_crds()) as server:
        client = KubeClient(server.transport())
        for page, manifest in manifests():
            resource = server.server.registry.by_kind(manifest["apiVersion"], manifest["kind"])
            if resource is None or not resource.group.endswith(AGENTS_GROUP):
                continue
            path = f"/apis/{manifest['apiVersion']}/namespaces/default/{resource.plural}"
            strictly = {"dryRun": "All", "fieldValidation": "Strict"}
            try:
                await client.request("POST", path, query=strictly, body=json.dumps(manifest).encode())
            except ApiError as error:
                refused.append(f"{page}: {error}")
    assert refused == []


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every object in a YAML block, with the name of its page."""
    return [
        (str(page.relative_to(DOCS)), manifest)
        for page in pages()
        for block in blocks_of(page)
        if block.language == "yaml"
        for manifest in yaml.safe_load_all(block.text)
        if {"apiVersion", "kind", "metadata"} <= manifest.keys()
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_table_of_a_kind_names_every_field_of_its_spec_and_no_other(kind: type[BaseModel]) -> None:
    text = (DOCS / "reference/CRDs" / f"{kind.__name__}.md").read_text()
    table = re.search(r"^## Spec fields\n(.*?)^(?:##|\[All)", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    named = {
        name.split(".")[0] for cell in re.findall(r"^\| ([^|]*) \|", table[1], re.MULTILINE) for name in ticked(cell)
    }

    [spec] = [part for part in (kind.model_fields["spec"].annotation,) if part is not None]
    fields = (get_args(spec) or (spec,))[0].model_fields

    assert named == {field.alias or name for name, field in fields.items()}


def ticked(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("block", blocks("python"))
def test_a_program_is_python_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agent_sandbox"):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH; it builds kustomizations")
def test_a_shard_as_the_page_on_tuning_has_it_shares_nothing_with_the_default(tmp_path: Path) -> None:
    [block] = [each for each in blocks_of(DOCS / "guides/tuning.md") if "nameSuffix" in each.text]
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (tmp_path / "kustomization.yaml").write_text(block.text)
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    objects = list(yaml.safe_load_all(done.stdout))

    assert {each["metadata"].get("namespace", "agent-sandbox-shard-a") for each in objects} == {"agent-sandbox-shard-a"}
    assert all(each["metadata"]["name"].endswith("-a") for each in objects)
    [manager] = [each for each in objects if each["kind"] == "Deployment"]
    assert manager["spec"]["template"]["spec"]["containers"][0]["args"] == [
        "manager",
        "--leader-elect",
        "--leader-election-namespace=agent-sandbox-shard-a",
        "--metrics-bind-address=:8080",
        "--health-probe-bind-address=:8081",
        "--watch-namespaces=team-1,team-2,team-3",
    ]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_every_target_of_make_that_a_page_names_exists() -> None:
    lines = [line for page in pages() for block in blocks_of(page) for line in block.text.splitlines()]
    targets = sorted({match[1] for line in lines if (match := re.match(r"make ([a-z-]+)", line))})
    done = subprocess.run(["make", "--dry-run", *targets], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("grep") is None, reason="there is no grep here")
def test_every_search_of_the_skill_finds_something() -> None:
    skill = REPOSITORY / "skills/agent-sandbox/SKILL.md"
    searches = re.findall(r"`(grep -A[^`]+)`", skill.read_text())
    assert len(searches) > 6
    for search in searches:
        done = subprocess.run(["sh", "-c", search], cwd=skill.parent, capture_output=True, text=True, check=False)
        assert len(done.stdout.splitlines()) > 5, search


def test_the_page_on_reasons_has_a_row_with_a_remedy_for_every_reason_that_the_controllers_write() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", (DOCS / "guides/troubleshoot.md").read_text(), re.MULTILINE
    )
    written = {value for key, value in vars(Reason).items() if key.isupper()}

    assert written - {reason for reason, _ in rows} == set()
    assert all(remedy.strip() for _, remedy in rows)
