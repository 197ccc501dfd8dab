"""A state directory: whose it is, and what may be removed from it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from agent_sandbox.cli import main
from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.errors import ForeignDirectoryError


def test_a_purge_of_somebody_elses_directory_removes_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "thesis.tex"
    kept.write_text("years")
    (tmp_path / "node").mkdir()

    with pytest.raises(ForeignDirectoryError, match="nothing of it was removed"):
        StateDirectory(tmp_path).purge()
    result = CliRunner().invoke(main, ["local", "down", "--purge", "--state-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert "holds other things than a stack's" in result.output
    assert kept.read_text() == "years"
    assert (tmp_path / "node").is_dir()


def test_a_stack_moves_into_no_directory_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ForeignDirectoryError, match="--state-dir"), StateDirectory(tmp_path).owned():
        pytest.fail("it moved in")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_stacks_own_directory_is_used_again_and_removed(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path / "state")
    directory.create()
    (directory.root / "objects.db").write_bytes(b"")
    with directory.owned():
        assert directory.owner() is not None
    directory.purge()
    assert not directory.root.exists()
    directory.purge()


def test_an_empty_directory_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    StateDirectory(tmp_path).create()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
