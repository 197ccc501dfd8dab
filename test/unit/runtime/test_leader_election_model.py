"""Elections under every schedule of partitions, lost answers, crashes and orderly stops that hypothesis finds.

The model is one sentence: at no moment may two processes write, and while one can reach the server somebody leads.
"""

import random
from dataclasses import dataclass

import anyio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import Fence, LeaderElectionOptions, LeaderElector, LeadershipLostError
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock, run_in_virtual_time

CANDIDATES = 3


@dataclass(frozen=True)
class Move:
    """What happens to one candidate, and how long until the next move."""

    action: str
    who: int
    seconds: float


moves = st.builds(
    Move,
    st.sampled_from(["partition", "heal", "lost answer", "slow", "conflict", "kill", "stop", "nothing"]),
    st.integers(0, CANDIDATES - 1),
    st.sampled_from([0.1, 1.0, 2.5, 6.0, 9.9, 10.1, 14.9, 16.0, 25.0]),
)


class Process:
    """One candidate that is started again whenever it ends."""

    def __init__(self, server: InMemoryApiServer, number: int) -> None:
        self.number = number
        self.clock = VirtualClock()
        self.wire = FaultyTransport(server.transport())
        self.fence = Fence(clock=self.clock)
        self.lives = 0
        self.scope = anyio.CancelScope()
        self.releases = True

    async def run(self) -> None:
        while True:
            self.lives += 1
            self.fence = Fence(clock=self.clock)
            self.scope = anyio.CancelScope()
            elector = LeaderElector(
                KubeClient(self.wire, clock=self.clock),
                LeaderElectionOptions(
                    namespace="default",
                    name="lock",
                    identity=f"{self.number}-{self.lives}",
                    release_on_stop=self.releases,
                ),
                self.fence,
                clock=self.clock,
                random=random.Random(self.number),
            )
            with self.scope:
                try:
                    await elector.acquire()
                    await elector.lead()
                except LeadershipLostError:
                    assert not self.fence.is_open
            await self.clock.sleep(0.5)

    def suffer(self, action: str) -> None:
        match action:
            case "partition":
                self.wire.partition()
            case "heal":
                self.wire.heal()
            case "lost answer":
                self.wire.inject(Fault.lost_answer(), method="PATCH", times=2)
            case "slow":
                self.wire.inject(Fault.slow(4), method="PATCH", times=2)
            case "conflict":
                self.wire.inject(Fault.conflict(), method="PATCH")
            case "kill" | "stop":
                self.releases = action == "stop"
                if action == "kill":
                    self.fence.close()  # a dead process writes nothing
                self.scope.cancel()


async def play(schedule: list[Move]) -> None:
    clock = VirtualClock()
    server = InMemoryApiServer(clock=clock)
    await server.server.open()
    processes = [Process(server, number) for number in range(CANDIDATES)]

    async def watch_the_fences() -> None:
        while True:
            writers = [process.number for process in processes if process.fence.is_open]
            assert len(writers) <= 1, f"{writers} may write at {clock.monotonic()}"
            await clock.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        for process in processes:
            tasks.start_soon(process.run)
        tasks.start_soon(watch_the_fences)
        await clock.sleep(1)
        for move in schedule:
            processes[move.who].suffer(move.action)
            await clock.sleep(move.seconds)

        for process in processes:
            process.wire.heal()
        await clock.sleep(40)
        assert sum(process.fence.is_open for process in processes) == 1, "nobody leads although everybody could"
        tasks.cancel_scope.cancel()
    await server.server.aclose()


@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
@given(st.lists(moves, max_size=12))
def test_at_most_one_process_may_write_and_in_the_end_one_does(schedule: list[Move]) -> None:
    run_in_virtual_time(lambda: play(schedule))
