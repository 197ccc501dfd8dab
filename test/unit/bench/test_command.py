"""`agent-sandbox bench` without a cluster: help, files, mistakes."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from agent_sandbox.bench import SCENARIOS, Measured, Report
from agent_sandbox.cli import main


def write_report(path: Path, name: str, seconds: float, scenario: str = "burst") -> str:
    result = Measured(
        scenario=scenario, parameters={"claims": 1, "pool": 1}, unit="claims", seconds=[seconds], elapsed=seconds
    )
    Report(
        controllers=name,
        api_version="v1alpha1",
        server="v1",
        node="hollow",
        when="now",
        machine="here",
        results=[result],
    ).write(path)
    return str(path)


def test_the_help_names_every_scenario() -> None:
    answer = CliRunner().invoke(main, ["bench", "run", "--help"])

    assert answer.exit_code == 0
    for scenario in SCENARIOS.values():
        assert f"{scenario.name}  " in answer.output
        assert scenario.text in answer.output


def test_two_files_are_compared_and_drawn(tmp_path: Path) -> None:
    files = [write_report(tmp_path / "a.json", "ours", 0.1), write_report(tmp_path / "b.json", "theirs", 0.4)]
    answer = CliRunner().invoke(main, ["bench", "compare", *files, "--picture", str(tmp_path / "both.svg")])

    assert answer.exit_code == 0
    assert "| burst    | p50 ms            | 100  | 400    | 0.25  |" in answer.output
    assert (tmp_path / "both.svg").stat().st_size > 1000


def test_two_files_of_different_scenarios_have_nothing_to_compare(tmp_path: Path) -> None:
    files = [write_report(tmp_path / "a.json", "ours", 0.1), write_report(tmp_path / "b.json", "ours", 0.1, "cold")]
    answer = CliRunner().invoke(main, ["bench", "compare", *files])

    assert answer.exit_code == 1
    assert "have no scenario in common" in answer.output


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(msgspec.json.encode({"kind": "List"}))
    answer = CliRunner().invoke(main, ["bench", "compare", str(tmp_path / "x.json"), str(tmp_path / "x.json")])

    assert answer.exit_code == 1
    assert answer.output.startswith("Error: ")
    assert "x.json is no benchmark report" in answer.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hollow-node", "soon"], "'soon' is no distribution of seconds"),
        (["--controller", "true"], "--controller needs --kubeconfig"),
        (["sprint"], "'sprint' is not one of"),
        (["--claims", "0"], "0 is not in the range x>=1"),
        (["--rate", "0"], "0.0 is not in the range x>0"),
        (["-o", "/no/such/folder/x.json"], "there is no directory /no/such/folder"),
    ],
)
def test_mistakes_are_said_before_anything_is_touched(arguments: list[str], words: str) -> None:
    answer = CliRunner(env={"KUBECONFIG": ""}).invoke(main, ["bench", "run", *arguments])

    assert answer.exit_code == 2
    assert words in answer.output


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        '{"apiVersion": "v1", "kind": "Config", "current-context": "x",'
        ' "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],'
        ' "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}], "users": [{"name": "x", "user": {}}]}'
    )
    answer = CliRunner().invoke(main, ["bench", "run", "serial", "--kubeconfig", str(kubeconfig)])

    assert answer.exit_code == 1
    assert answer.output.startswith("Error: ")
    assert "127.0.0.1:9" in answer.output
