"""One step of an autoscaler by hand: demand, a real Prometheus, the adapter's query, the size of the pool.

It reads what the cluster would read: ``prometheus-adapter.yaml`` and ``cluster/horizontalpodautoscaler.yaml``.
"""

import argparse
import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from agent_sandbox import Sandboxes

HERE = Path(__file__).parent
AUTOSCALER = yaml.safe_load((HERE / "cluster" / "horizontalpodautoscaler.yaml").read_text())["spec"]
(EXTERNAL,) = [metric["external"] for metric in AUTOSCALER["metrics"]]
(RULE,) = yaml.safe_load((HERE / "prometheus-adapter.yaml").read_text())["rules"]["external"]


@contextmanager
def prometheus(scraped: str) -> Iterator[str]:
    """A Prometheus that asks the controllers each second; gives its URL."""
    if shutil.which("prometheus") is None:
        sys.exit("prometheus is not installed: `make tools` brings it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    job = {"job_name": "agent-sandbox-controller", "honor_labels": True, "static_configs": [{"targets": [scraped]}]}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "prometheus.yml")
        config.write_text(
            json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]})
        )
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
        running = subprocess.Popen(["prometheus", *options, "--log.level=error"])
        try:
            yield f"http://{address}"
        finally:
            running.terminate()
            running.wait()


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a query; nothing while it starts."""
    with (
        suppress(OSError),
        urllib.request.urlopen(f"{url}/api/v1/query?" + urllib.parse.urlencode({"query": query})) as said,
    ):
        return list(json.load(said)["data"]["result"])
    return []


def demand(url: str, query: str) -> float:
    """What the autoscaler makes of the answer: the sum, if there are several series; 0 before there is a rate."""
    return sum(float(each["value"][1]) for each in ask(url, query))


def adapter_query(namespace: str) -> str:
    """The query that prometheus-adapter makes of its rule for this autoscaler."""
    labels = {"namespace": namespace, **EXTERNAL["metric"]["selector"]["matchLabels"]}
    matchers = ",".join(f'{name}="{value}"' for name, value in labels.items())
    series = RULE["seriesQuery"].partition("{")[0]
    return str(RULE["metricsQuery"]).replace("<<.Series>>", series).replace("<<.LabelMatchers>>", matchers)


def wanted_replicas(value: float) -> int:
    """As an autoscaler reckons with the type AverageValue: the value divided by what one replica answers for."""
    target = float(EXTERNAL["target"]["averageValue"].removesuffix("m")) / 1000
    return max(AUTOSCALER["minReplicas"], min(AUTOSCALER["maxReplicas"], math.ceil(value / target)))


def main() -> None:
    """Make demand until the query shows it, then scale as the autoscaler would."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metrics", default="127.0.0.1:9101", help="the controllers' /metrics (%(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="how long claims come at least (%(default)s)")
    given = parser.parse_args()
    query = adapter_query("default")
    print("query:", query)
    with prometheus(given.metrics) as url, Sandboxes() as sandboxes:
        while not ask(url, "up == 1"):
            time.sleep(0.1)
        claims, end = 0, time.monotonic() + given.seconds
        while (value := demand(url, query)) == 0 or time.monotonic() < end:
            with sandboxes.use("hpa-template", ttl=60):
                claims += 1
    replicas = wanted_replicas(value)
    print(f"{claims} claims; the metric says {value:.2f} per second; the pool gets {replicas} replicas")
    target = AUTOSCALER["scaleTargetRef"]["name"]
    subprocess.run(["kubectl", "scale", f"swp/{target}", f"--replicas={replicas}"], check=True)


if __name__ == "__main__":
    main()
