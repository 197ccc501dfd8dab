"""The Japanese reference beside the English one: the same pages, the same code, the headings that people grep."""

import re
from pathlib import Path

import pytest

ENGLISH = Path(__file__).resolve().parents[2] / "docs" / "reference"
JAPANESE = Path(__file__).resolve().parents[2] / "docs" / "ja" / "reference"
PAGES = sorted(
    page.relative_to(ENGLISH) for room in ("CRDs", "python-sdk", "examples") for page in (ENGLISH / room).glob("*.md")
)
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def test_there_are_pages() -> None:
    assert len(PAGES) == 14


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_has_its_twin_with_the_same_code(page: Path) -> None:
    ours, theirs = (_CODE.findall((root / page).read_text()) for root in (JAPANESE, ENGLISH))

    assert ours == theirs


@pytest.mark.parametrize(
    ("page", "heading"),
    [
        ("CRDs/Sandbox.md", "## Spec フィールド"),
        ("CRDs/Sandbox.md", "## 最小構成例"),
        ("CRDs/SandboxTemplate.md", "## Spec フィールド"),
        ("CRDs/SandboxTemplate.md", "### NetworkPolicySpec"),
        ("CRDs/SandboxTemplate.md", "## セキュアな設定例"),
        ("CRDs/SandboxClaim.md", "## Spec フィールド"),
        ("CRDs/SandboxClaim.md", "## 動作フロー"),
        ("CRDs/SandboxWarmPool.md", "## Spec フィールド"),
        ("CRDs/SandboxWarmPool.md", "## HPA"),
        ("python-sdk/SandboxClient.md", "## 内部動作"),
        ("examples/python-runtime-sandbox.md", "## API"),
        ("examples/python-runtime-sandbox.md", "## マニフェスト"),
        ("examples/vscode-sandbox.md", "## マニフェスト"),
    ],
)
def test_the_patterns_of_the_seed_find_their_sections(page: str, heading: str) -> None:
    assert heading in (JAPANESE / page).read_text().splitlines()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=str)
def test_every_field_of_the_english_tables_is_in_the_japanese_ones(page: Path) -> None:
    first_cells = re.findall(r"^\| (`[^|]+`) \|", (ENGLISH / page).read_text(), re.MULTILINE)
    japanese = (JAPANESE / page).read_text()

    assert [cell for cell in first_cells if f"| {cell} |" not in japanese] == []
