# ruff: noqa: T201 - a program that prints
"""Writes the tables of docs/performance.md from the results in docs/performance: `python test/bench/claims/publish.py`.

Results are what `claims.py --output` wrote, one JSON file for each run, named after it; pictures lie beside them. What
stands between the two marks of the page is replaced, so that no number of it was ever typed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from agent_sandbox.bench import Measured, Report, compare
from agent_sandbox.bench.comparison import table

PAGE = Path(__file__).resolve().parents[3] / "docs" / "performance.md"
RESULTS = PAGE.parent / "performance"
BEGIN, END = "<!-- claims: begin -->\n", "<!-- claims: end -->\n"
RUNS = {
    "trivial": (
        "A server that costs next to nothing: the controllers are the limit",
        "--server trivial --claims 300 --pool 300",
    ),
    "trivial-no-refill": (
        "The same server, and no refill while it is measured",
        "--server trivial burst --claims 300 --pool 300 --rounds 5` with `--sandbox-warm-pool-replenish-delay 600",
    ),
    "trivial-restart": (
        "The same server, a restart beside many Sandboxes and their Pods",
        "--server trivial restart",
    ),
    "kubernetes": (
        "kube-apiserver and etcd: the server is the limit",
        "serial parallel burst sustained cold fill suspend-resume leader-change",
    ),
    "kubernetes-restart": (
        "kube-apiserver and etcd, a restart beside many Sandboxes and their Pods",
        "restart --patience 600 --objects N",
    ),
    "embedded": ("The embedded API server of the local stack", "--server embedded"),
}
"""By the name of its file: what a run shows, and the arguments of ``claims.py`` that make it."""
BEFORE, AFTER = "kubernetes-abab-before", "kubernetes-abab"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its first row as the heading."""
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest))


def costs(result: Measured) -> str:
    """What a scenario cost beside its times, as a line of a list."""
    count = max(1, len(result.seconds))
    told = [f"{name}: {value:.3g}" for name, value in result.figures.items()]
    if result.server_cpu is not None and result.controller_cpu is not None:
        each = (result.server_cpu / count * 1000, result.controller_cpu / count * 1000)
        told.append(f"CPU each: API server {each[0]:.1f} ms, controllers {each[1]:.1f} ms")
    writes = ", ".join(f"{number / count:.3g} {what}" for what, number in (result.writes or {}).items())
    parameters = ", ".join(f"{name} {value}" for name, value in result.parameters.items())
    return f"- `{result.scenario}` ({parameters}): {'; '.join([*told, f'writes each: {writes}'])}"


def sections(reports: dict[str, Report]) -> Iterator[str]:
    """One part for each run, then before beside after."""
    for name, (title, arguments) in RUNS.items():
        if (report := reports.get(name)) is None:
            continue
        where = f"{report.server}; nodes: {report.node}; {report.machine}"
        rounds = "one round" if report.rounds == 1 else f"{report.rounds} rounds"
        yield f"**{title}.** `claims.py {arguments}`: {where}; {rounds}, {report.when}."
        yield markdown(table(report))
        yield "\n".join(costs(result) for result in report.results)
        is_distribution = any(len(result.seconds) > 1 for result in report.results)
        if is_distribution and (RESULTS / f"{name}.svg").exists():
            yield f"![how many claims were Ready after how long: {title}](performance/{name}.svg)"
    if BEFORE in reports and AFTER in reports:
        yield "**Before and after**, A B A B on one kube-apiserver; the ratio is after to before."
        yield markdown(compare(reports[AFTER], reports[BEFORE]))


def published() -> str:
    """The page as it should be: what stands between the marks made anew from the results."""
    reports = {path.stem: Report.read(path) for path in sorted(RESULTS.glob("*.json"))}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + "\n\n".join(sections(reports)) + "\n\n" + END + after


def main() -> None:
    """Write it."""
    PAGE.write_text(published())
    print(PAGE)


if __name__ == "__main__":
    main()
