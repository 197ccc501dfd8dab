"""Measures the controllers of a cluster: how long claims take, and what they cost the API server.

In: a client of any API server that serves the four kinds, v1alpha1 or v1beta1, whoever's controllers run there. Out: a
``Report``, which is JSON, a table and a picture. Every time is taken by the client: from before a create is sent until
a watch shows Ready. It knows nothing of our controllers; ``agent-sandbox bench`` and ``test/bench/claims`` start them.
"""

from agent_sandbox.bench.bench import Bench, Sizes
from agent_sandbox.bench.comparison import compare
from agent_sandbox.bench.dialect import Dialect, DialectError, find_dialect
from agent_sandbox.bench.failures import cause_of
from agent_sandbox.bench.hollow_node import HollowNode
from agent_sandbox.bench.results import Measured, Report, merge
from agent_sandbox.bench.scenarios import SCENARIOS, Scenario
from agent_sandbox.bench.start_delay import StartDelay
from agent_sandbox.bench.subject import External, Processes, Subject

__all__ = [
    "SCENARIOS",
    "Bench",
    "Dialect",
    "DialectError",
    "External",
    "HollowNode",
    "Measured",
    "Processes",
    "Report",
    "Scenario",
    "Sizes",
    "StartDelay",
    "Subject",
    "cause_of",
    "compare",
    "find_dialect",
    "merge",
]
