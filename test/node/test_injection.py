"""Texts of a Pod are texts: none becomes an option of the program that puts up the walls."""

from collections.abc import Callable
from typing import Any

RunNode = Callable[..., Any]
OPTION = "\0--bind\0/\0/srv\0--tmpfs\0/none"
"""What bwrap would read as further options: this machine's files instead of an empty directory."""


async def test_a_null_byte_takes_down_no_wall(run_node: RunNode) -> None:
    """bwrap reads its options up to a null byte each: what stood behind one in a variable was an option."""
    attempts: dict[str, dict[str, Any]] = {
        "env": {"env": [{"name": "X", "value": f"x{OPTION}"}]},
        "workdir": {"workingDir": f"/tmp{OPTION}\0--dir\0/tmp"},
        "mount": {"volumeMounts": [{"name": "v", "mountPath": f"/v{OPTION}"}]},
    }
    async with run_node() as stack:
        for name, field in attempts.items():
            container = {"name": "main", "image": "localhost/host", "command": ["ls", "/srv"], **field}
            volumes = [{"name": "v", "emptyDir": {}}]
            spec = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
            await stack.create_pod(name, spec)

        def refused_or_ended(pod: Any) -> bool:
            waiting = [status.state.waiting for status in pod.status.container_statuses if status.state.waiting]
            refused = any("null byte" in state.message for state in waiting)
            return refused or pod.status.phase in ("Succeeded", "Failed")

        for name in attempts:
            pod = await stack.until(name, refused_or_ended)
            assert pod.status.phase == "Pending", await stack.log(name, "main")
