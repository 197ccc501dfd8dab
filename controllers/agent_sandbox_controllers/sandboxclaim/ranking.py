"""In which order a claim tries the members of its pools.

Members made as the template is now come first. Among them the fullest node comes first, so that what stays is spread;
on one node, the oldest member.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from agent_sandbox_controllers.sandboxclaim.observed import Candidate

_NEVER = datetime.min.replace(tzinfo=UTC)


def best_first(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates in the order in which to try them."""
    per_node = Counter(_node(candidate) for candidate in candidates)
    return tuple(
        sorted(
            candidates,
            key=lambda each: (
                not each.fresh,
                -per_node[_node(each)] if _node(each) else 0,
                each.view.metadata.creation_timestamp or _NEVER,
                each.view.metadata.name,
            ),
        )
    )


def _node(candidate: Candidate) -> str:
    return candidate.view.status.node_name or ""
