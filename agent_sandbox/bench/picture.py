"""A picture of latencies: for every share of the samples, the latency below which they lie."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from agent_sandbox.bench.results import Report, ReportError


def check_library() -> None:
    """Make sure that pictures can be drawn, before anything is measured for one.

    Raises:
        ReportError: the library that draws is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ReportError("pictures need a library: pip install 'agent-sandbox-k8s[bench]'")


def draw(reports: Sequence[Report], path: Path) -> None:
    """Write an SVG with one curve for each scenario of each report.

    Raises:
        ReportError: the library that draws is not installed.
    """
    check_library()
    from matplotlib.figure import Figure

    # Without pyplot: no global state, no window system, and several pictures at a time do not mix.
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    for report, style in zip(reports, ("-", "--", ":", "-.") * len(reports), strict=False):
        for number, result in enumerate(report.results):
            milliseconds = [each * 1000 for each in sorted(result.seconds)]
            shares = [(index + 1) / len(milliseconds) * 100 for index in range(len(milliseconds))]
            label = f"{report.controllers}: {result.scenario} ({len(milliseconds)} {result.unit})"
            axes.step(milliseconds, shares, style, where="post", color=f"C{number}", label=label)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds until Ready, seen by the client")
    axes.set_ylabel("% of the samples that took at most so long")
    axes.set_ylim(0, 101)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    axes.set_title(
        ", ".join(dict.fromkeys(f"{each.server}, nodes: {each.node}" for each in reports)), fontsize="medium"
    )
    # The date would make every run's file another.
    figure.savefig(path, format="svg", metadata={"Date": None})
