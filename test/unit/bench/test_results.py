"""Reports: percentiles, rounds put together, files, tables."""

import math
import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

from agent_sandbox.bench import Measured, Report, compare, merge
from agent_sandbox.bench.comparison import render, table
from agent_sandbox.bench.picture import draw
from agent_sandbox.bench.results import ReportError


def measured(*seconds: float, scenario: str = "burst", **more: object) -> Measured:
    known = {"parameters": {"claims": len(seconds)}, "unit": "claims", "elapsed": 2.0, **more}
    return Measured(scenario=scenario, seconds=list(seconds), **known)  # type: ignore[arg-type]


def report(*results: Measured, name: str = "ours") -> Report:
    return Report(
        controllers=name,
        api_version="v1alpha1",
        server="v1.36.3",
        node="hollow",
        when="2026-11-25T00:00:00+00:00",
        machine="2 CPUs",
        results=list(results),
    )


def test_percentiles_are_samples_and_never_between_two() -> None:
    result = measured(*(number / 100 for number in range(100, 0, -1)))

    assert result.percentile(0.5) == 0.5
    assert result.percentile(0.99) == 0.99
    assert result.percentile(1.0) == 1.0
    assert result.percentile(0.0) == 0.01
    assert math.isnan(measured().percentile(0.5))


def test_a_rate_is_over_the_time_from_the_first_request_to_the_last_answer() -> None:
    assert measured(0.1, 0.2, 0.3).rate == 1.5


def test_rounds_keep_every_sample_and_add_what_they_cost() -> None:
    first = measured(0.1, writes={"create pods": 2}, controller_cpu=0.5, controller_memory=100, server_cpu=1.0)
    second = measured(0.3, writes={"create pods": 4}, controller_cpu=0.25, controller_memory=300, server_cpu=None)

    whole = merge([report(first), report(second)])

    (result,) = whole.results
    assert whole.rounds == 2
    assert result.seconds == [0.1, 0.3]
    assert result.elapsed == 4.0
    assert result.writes == {"create pods": 6}
    assert result.writes_each == 3.0
    assert result.controller_cpu == 0.75
    assert result.controller_memory == 300
    assert result.server_cpu is None, "a round that does not know makes the sum unknown"


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    whole = report(measured(0.1, 0.2, writes={"create pods": 2}, figures={"idle CPU %": 0.5}, notes=["a note"]))
    whole.write(tmp_path / "report.json")

    assert Report.read(tmp_path / "report.json") == whole


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1}'])
def test_a_file_that_is_no_report_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)

    with pytest.raises(ReportError, match=r"other\.json is no benchmark report"):
        Report.read(tmp_path / "other.json")


def test_a_report_of_another_form_is_refused(tmp_path: Path) -> None:
    report(measured(0.1)).write(tmp_path / "old.json")
    text = (tmp_path / "old.json").read_text()
    (tmp_path / "old.json").write_text(text.replace('"schema": 1', '"schema": 0'))

    with pytest.raises(ReportError, match="measure again"):
        Report.read(tmp_path / "old.json")


def test_two_reports_are_set_side_by_side_with_their_ratio() -> None:
    ours = report(measured(0.1, 0.1, writes={"create pods": 2}, controller_cpu=0.01))
    theirs = report(measured(0.2, 0.2, writes={"create pods": 8}), name="theirs")

    rows = compare(ours, theirs)

    assert rows[0] == ("scenario", "figure", "ours", "theirs", "ratio")
    assert ("burst", "p50 ms", "100", "200", "0.50") in rows
    assert ("burst", "API writes each", "1", "4", "0.25") in rows
    assert not any("CPU" in row[1] for row in rows), "only what both have"


def test_runs_of_different_sizes_are_not_compared() -> None:
    rows = compare(report(measured(0.1)), report(measured(0.1, 0.2)))

    assert rows[1:] == [("burst", "not comparable", "claims 1", "claims 2", "-")]


def test_a_table_lines_up_and_says_what_was_not_measured() -> None:
    text = render(table(report(measured(0.1234), measured(scenario="cold"))))

    assert len({len(line) for line in text.splitlines()}) == 1
    assert "| burst    | 1 claims | 123 ms" in text
    assert "| cold     | 0 claims | -" in text


def test_a_picture_shows_a_curve_for_each_scenario_without_scripts(tmp_path: Path) -> None:
    with mpl.rc_context({"svg.fonttype": "none"}):  # text as text
        draw([report(measured(0.1, 0.2)), report(measured(0.4), name="theirs")], tmp_path / "latency.svg")

    text = (tmp_path / "latency.svg").read_text()
    assert "ours: burst (2 claims)" in text
    assert "theirs: burst (1 claims)" in text
    assert "<script" not in text


def test_the_page_says_what_the_results_beside_it_say() -> None:
    publish = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "claims" / "publish.py"))

    assert publish["published"]() == publish["PAGE"].read_text(), "run test/bench/claims/publish.py"
