#!/usr/bin/env python
"""Shows metrics at work: a local stack, a real Prometheus that scrapes it, and every query of dashboard and alerts.

    hack/show_metrics.py --seconds 60 --picture docs/pictures/dashboard.png

A little load is made meanwhile: warm and cold sandboxes, suspended ones, refused and failing requests. It ends with 1
if a query fails, a panel stays empty that should not, /metrics is not as Prometheus likes it, or an alert fires.
Needs: the local node (bubblewrap), prometheus and promtool (`make tools`); matplotlib for the picture.
"""

import argparse
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import yaml

from agent_sandbox.sdk import AsyncSandboxClient

REPOSITORY = Path(__file__).resolve().parent.parent
CONTROLLER, ROUTER = "agent-sandbox-controller", "sandbox-router"
TEMPLATE = "python-sandbox-template"
SCRAPE_SECONDS = 1
PATIENCE_SECONDS = 60
"""How long a panel may have nothing to show yet: a rate takes two scrapes of what happened last."""
EMPTY_HERE = {
    "Leader": "the local stack holds no election",
    "Pods lost": "no node was lost",
}
"""Panels that show nothing on one machine."""
KNOWN_REMARK = r"^agent_sandbox_\w+_ms metric names should not contain abbreviated units$"
"""What promtool says of the Go project's names, which we keep for the dashboards that know them."""


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Show:
    """A stack and a Prometheus.

    Attributes:
        metrics: where the controllers and the router show their metrics, by job.
        prometheus: URL of the Prometheus.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.metrics = {CONTROLLER: free_port(), ROUTER: free_port()}
        self.prometheus = f"http://127.0.0.1:{free_port()}"

    @contextmanager
    def stack(self) -> Iterator[None]:
        """The local stack with template and pool of the samples."""
        ports = ["--metrics-port", str(self.metrics[CONTROLLER]), "--router-metrics-port", str(self.metrics[ROUTER])]
        self._command("local", "up", "--background", "--quiet", "--api-port", "0", "--router-port", "0", *ports)
        try:
            for name in ("sandboxtemplate", "sandboxwarmpool"):
                self._command("apply", "-f", f"config/samples/{name}.yaml", "--wait")
            yield
        finally:
            self._command("local", "down", "--purge", "--quiet")

    def _command(self, *words: str) -> None:
        where = ["--state-dir", str(self.state)] if words[0] == "local" else ["--kubeconfig", str(self._kubeconfig())]
        command = [sys.executable, "-m", "agent_sandbox", *words[:2], *where, *words[2:]]
        if words[0] == "apply":
            command = [sys.executable, "-m", "agent_sandbox", *words, *where]
        subprocess.run(command, cwd=REPOSITORY, check=True)

    def _kubeconfig(self) -> Path:
        command = [sys.executable, "-m", "agent_sandbox", "local", "kubeconfig", "--state-dir", str(self.state)]
        done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
        return Path(done.stdout.strip())

    @contextmanager
    def scraper(self) -> Iterator[None]:
        """Prometheus, with our rules, until the end of the block."""
        rules = yaml.safe_load((REPOSITORY / "config" / "prometheus" / "rules.yaml").read_text())["spec"]
        for group in rules["groups"]:
            group["interval"] = "2s"
        (self.folder / "rules.json").write_text(json.dumps(rules))
        jobs = [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in self.metrics.items()
        ]
        times = {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}
        config = {"global": times, "rule_files": ["rules.json"], "scrape_configs": jobs}
        (self.folder / "prometheus.yml").write_text(json.dumps(config))
        command = [
            "prometheus",
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self.prometheus.removeprefix('http://')}",
            "--log.level=warn",
        ]
        with (self.folder / "prometheus.log").open("wb") as log:
            running = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                yield
            finally:
                running.terminate()
                running.wait()

    # Load

    async def make_load(self, seconds: float) -> int:
        """Ask for sandboxes and use them; gives how many there were."""
        made, end = 0, anyio.current_time() + seconds
        while anyio.current_time() < end:
            for warmpool in (None, None, "none"):
                async with AsyncSandboxClient(TEMPLATE, state_dir=self.state, warmpool=warmpool) as sandbox:
                    await sandbox.run("python3 -c 'print(42)'")
                    if warmpool is not None:
                        await sandbox.sandbox.suspend()
                        await sandbox.sandbox.resume()
                        await self._be_refused(sandbox)
                made += 1
                await anyio.sleep(0.5)
        return made

    async def _be_refused(self, sandbox: AsyncSandboxClient) -> None:
        """One request without a credential, and one to a port on which nobody listens."""
        async with aiohttp.ClientSession() as session:
            async with session.get(
                f"{sandbox.base_url}/", headers={"X-Sandbox-ID": sandbox.claim_name or ""}
            ) as answer:
                await answer.read()
            headers = sandbox.ports.headers(9)
            async with session.get(sandbox.ports.url(9), headers=headers) as answer:
                await answer.read()

    # Asking

    async def ask(self, session: aiohttp.ClientSession, path: str, **parameters: str) -> Any:
        """Ask Prometheus.

        Raises:
            RuntimeError: it refuses; says why.
        """
        async with session.get(f"{self.prometheus}/api/v1/{path}", params=parameters) as answer:
            body = await answer.json()
        if body["status"] != "success":
            raise RuntimeError(f"{parameters}: {body.get('error')}")
        return body["data"]

    async def until_scraped(self, session: aiohttp.ClientSession) -> None:
        """Wait until both processes were scraped."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                with suppress(aiohttp.ClientError):
                    found = await self.ask(session, "query", query="up == 1")
                    if len(found["result"]) == len(self.metrics):
                        return
                await anyio.sleep(0.2)


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard, rows aside."""
    dashboard = json.loads((REPOSITORY / "config" / "grafana" / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expression(target: dict[str, str]) -> str:
    """A query of the dashboard as Grafana sends it."""
    return target["expr"].replace("$__rate_interval", "15s").replace("$namespace", ".*")


async def check_panels(show: Show, session: aiohttp.ClientSession) -> list[str]:
    """Ask what each panel asks; gives what is wrong."""
    wrong = []
    patience = anyio.current_time() + PATIENCE_SECONDS
    for panel in panels():
        why = EMPTY_HERE.get(panel["title"], "")
        for target in panel["targets"]:
            series, finite = await shown_by(show, session, target)
            while not finite and not why and anyio.current_time() < patience:
                await anyio.sleep(SCRAPE_SECONDS)
                series, finite = await shown_by(show, session, target)
            mark = "ok" if finite else "empty"
            say(f"  {mark:<6}{panel['title']:<34}{series:>3} series {f'({why})' if why else ''}")
            if not finite and not why:
                wrong.append(f"panel {panel['title']!r} shows nothing: {expression(target)}")
    return wrong


async def shown_by(show: Show, session: aiohttp.ClientSession, target: dict[str, str]) -> tuple[int, bool]:
    """How many series a query of a panel gives, and whether there is a number among them."""
    found = await show.ask(session, "query_range", query=expression(target), **window(300))
    numbers = [float(value) for series in found["result"] for _, value in series["values"]]
    return len(found["result"]), any(math.isfinite(number) for number in numbers)


def window(seconds: float, end: float | None = None) -> dict[str, str]:
    """So many seconds before a moment, or before now, for a range query."""
    until = time.time() if end is None else end
    return {"start": f"{until - seconds:.0f}", "end": f"{until:.0f}", "step": "1"}


async def check_rules(show: Show, session: aiohttp.ClientSession) -> list[str]:
    """Look at how Prometheus evaluates the rules; gives what is wrong."""
    wrong = []
    groups = (await show.ask(session, "rules"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok":
            wrong.append(f"rule {rule['name']} is {rule['health']}: {rule.get('lastError')}")
        if rule.get("state") == "firing":
            wrong.append(f"alert {rule['name']} fires on a healthy stack")
    say(f"  {len(rules)} rules evaluated, {sum(rule['type'] == 'alerting' for rule in rules)} of them alerts")
    return wrong


async def check_metrics(show: Show, session: aiohttp.ClientSession) -> list[str]:
    """Have promtool read each /metrics; gives what it does not like, apart from what we know of."""
    wrong = []
    for job, port in show.metrics.items():
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
        done = await anyio.run_process(["promtool", "check", "metrics"], input=text.encode(), check=False)
        lines = [line for line in (done.stdout + done.stderr).decode().splitlines() if line]
        known = [line for line in lines if re.search(KNOWN_REMARK, line)]
        wrong += [f"promtool on {job}: {line}" for line in lines if line not in known]
        say(f"  {job}: {text.count('# TYPE')} metrics, {len(known)} known remarks")
    return wrong


def legend(form: str, labels: dict[str, str]) -> str:
    """A legend of the dashboard as Grafana fills it in."""
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), form)


async def draw(show: Show, session: aiohttp.ClientSession, path: Path, range_: dict[str, str]) -> None:
    """Draw the upper panels of the dashboard from what Prometheus holds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plot

    titles = ["From claim to Ready", "Claims served", "Warm hits", "Sandboxes", "Warm pools", "Requests"]
    chosen = {panel["title"]: panel for panel in panels()}
    figure, axes = plot.subplots(2, 3, figsize=(15, 7), layout="constrained")
    begin, end = float(range_["start"]), float(range_["end"])
    for axis, title in zip(axes.flat, titles, strict=True):
        panel = chosen[title]
        for target in panel["targets"]:
            found = await show.ask(session, "query_range", query=expression(target), **range_)
            for series in found["result"]:
                label = legend(target["legendFormat"], series["metric"])
                points = [(at - begin, float(value)) for at, value in series["values"]]
                axis.plot([at for at, _ in points], [value for _, value in points], label=label)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axis.set_title(f"{title} [{unit}]" if unit != "short" else title, fontsize=11)
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, end - begin)
        axis.set_xlabel("seconds")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, metadata={"Software": None})
    say(f"  {path}")


async def run(show: Show, seconds: int, picture: Path | None) -> list[str]:
    """Load, questions, picture; gives what is wrong."""
    async with aiohttp.ClientSession() as session:
        await show.until_scraped(session)
        say(f"Prometheus scrapes both processes every second; load for {seconds} s")
        began = time.time()
        made = await show.make_load(seconds)
        loaded = window(time.time() - began)
        say(f"{made} sandboxes were made and used")
        say("What each panel of the dashboard gets:")
        wrong = await check_panels(show, session)
        say("How the rules are evaluated:")
        wrong += await check_rules(show, session)
        say("What promtool says of /metrics:")
        wrong += await check_metrics(show, session)
        if picture is not None:
            say("The picture:")
            await draw(show, session, picture, loaded)
    return wrong


def main() -> int:
    """Run it; the exit status says whether everything is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30, help="how long to make load (default %(default)s)")
    parser.add_argument("--picture", type=Path, help="draw the upper panels of the dashboard into this PNG file")
    arguments = parser.parse_args()
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            print(f"{program} is missing: run `make tools`, or sudo apt-get install prometheus", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="agent-sandbox-metrics-") as name:
        show = Show(Path(name))
        with show.stack(), show.scraper():
            wrong = anyio.run(run, show, arguments.seconds, arguments.picture)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
