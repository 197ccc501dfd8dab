"""Every link of every page leads somewhere: to a file that is there, and to a heading of it."""

import re
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
from markdown import Markdown

REPOSITORY = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)\s*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
_ELSEWHERE = re.compile(r"^[a-z][a-z0-9+.-]*:")


def pages() -> list[Path]:
    """All Markdown files that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split() if (path := REPOSITORY / name).exists()]


@lru_cache
def anchors(page: Path) -> frozenset[str]:
    """The names of a page's headings, as the site makes them."""
    reader = Markdown(extensions=["toc", "fenced_code", "attr_list", "tables"])
    return frozenset(re.findall(r'id="([^"]+)"', reader.convert(page.read_text())))


def links(page: Path) -> list[str]:
    """Targets of the page's links, those in code aside."""
    return [match["target"] for match in _LINK.finditer(_CODE.sub("", _FENCE.sub("", page.read_text())))]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        if _ELSEWHERE.match(target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists():
            broken.append(f"{target}: no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            broken.append(f"{target}: no such heading; there are {', '.join(sorted(anchors(file)))}")
    assert not broken, "\n".join(broken)
