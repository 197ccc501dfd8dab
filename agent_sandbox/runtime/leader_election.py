"""Elects one leader among processes by a Lease, and stops writing before anybody else may start.

In: a Lease that all candidates share. Out: ``acquire`` returns when this process leads, ``keep`` raises when it must
not any longer, and the ``Fence`` is open exactly in between. Same protocol and times as client-go, so both can stand
for the same Lease.
"""

import random
import socket
import uuid
from dataclasses import dataclass
from typing import Final, TypeAlias

import anyio
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import ConflictError, KubeClient, KubeError
from agent_sandbox.runtime.errors import LeadershipLostError
from agent_sandbox.runtime.fence import Fence
from agent_sandbox.runtime.informer import Informer, InformerOptions
from agent_sandbox.runtime.leases import LeaseLock, LeaseRecord
from agent_sandbox.runtime.store import Change
from agent_sandbox_api.core import LEASES, LeaseView

log = structlog.get_logger(__name__)

JITTER: Final = 1.2
"""Retries of candidates wait up to (1 + this) periods, as client-go."""


@dataclass(frozen=True, kw_only=True)
class LeaderElectionOptions:
    """An election; the times are client-go's defaults.

    Attributes:
        namespace: of the Lease.
        name: of the Lease; also the label of the metric.
        identity: who we are; hostname_uuid by default. Two processes of one identity would both lead.
        lease_duration: seconds that candidates wait after the last renewal that they saw, 15. The outage after a crash.
        renew_deadline: seconds after the last successful renewal at which the leader gives up, 10. The gap to
            ``lease_duration`` is what protects against a leader that is cut off: keep it above the longest request's
            way through the network.
        retry_period: seconds between renewals, and between looks of a candidate, 2.
        release_on_stop: let go of the Lease on an orderly stop, so that the successor need not wait. True, unlike
            client-go, because the manager stops everything that writes before.
    """

    namespace: str
    name: str
    identity: str = ""
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    release_on_stop: bool = True

    def __post_init__(self) -> None:
        if self.lease_duration <= self.renew_deadline:
            raise ValueError("lease_duration must be longer than renew_deadline, or two leaders could overlap")
        if self.renew_deadline <= self.retry_period * JITTER:
            raise ValueError(f"renew_deadline must be longer than {JITTER} retry periods, or one failure would depose")

    @property
    def request_timeout(self) -> float:
        """Seconds for one request: half the deadline, at least one, so that a hanging one leaves time for another."""
        return max(1.0, self.renew_deadline / 2)


@dataclass(frozen=True)
class Standby:
    """Somebody else leads, or nobody knows. ``seen`` is what the Lease last said, first seen so at ``since``
    (monotonic). It may be taken once it has not changed for a lease duration."""

    seen: LeaseRecord | None = None
    since: float = 0.0


@dataclass(frozen=True)
class Leading:
    """This process holds the Lease as ``record``; the renewal that wrote it was sent at ``renewed`` (monotonic)."""

    record: LeaseRecord
    renewed: float


@dataclass(frozen=True)
class Deposed:
    """This process held the Lease and could not renew it in time, or somebody else has it, or it let go."""

    reason: str


State: TypeAlias = Standby | Leading | Deposed


class LeaderElector:
    """One candidate.

    Flow:
        ``acquire`` (may take for ever) → ``lead``, as long as it lasts → the Lease is let go, or the process ends.
    Guarantees:
        The fence is open only until ``renew_deadline`` after the sending of the last renewal that is known to have
        succeeded. Another candidate that follows the protocol takes the Lease no earlier than ``lease_duration``
        after that. So no two holders write in the same moment, with ``lease_duration - renew_deadline`` to spare for
        what is in the network.
    Assumptions:
        The clocks of all candidates run at the same pace, within that spare time; they need not show the same time.
        Identities differ.
    Caveats:
        A request that was sent before the deadline may be carried out by the server after it. Only preconditions help
        against that.
    Errors:
        ``keep`` raises ``LeadershipLostError``. Failures of single requests are logged and retried.
    """

    def __init__(
        self,
        client: KubeClient,
        options: LeaderElectionOptions,
        fence: Fence,
        *,
        clock: Clock,
        random: random.Random,
    ) -> None:
        client = client.with_transport(client.transport, request_timeout=options.request_timeout)
        self.identity = (
            options.identity or f"{socket.gethostname()}_{uuid.UUID(int=random.getrandbits(128), version=4)}"
        )
        self.name = options.name
        self.state: State = Standby()
        self._client = client
        self._lock = LeaseLock(client, options.namespace, options.name)
        self._options = options
        self._fence = fence
        self._clock = clock
        self._random = random
        self._log = log.bind(lease=f"{options.namespace}/{options.name}", identity=self.identity)
        # Set when the Lease is seen without a holder; replaced by each candidate's wait.
        self._vacant = anyio.Event()

    @property
    def is_leader(self) -> bool:
        """True while this process may write."""
        return isinstance(self.state, Leading) and self._fence.is_open

    async def acquire(self) -> None:
        """Wait until this process leads. A Lease that is let go is noticed at once, by a watch."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch_for_vacancy, name="watch the lease")
            while not isinstance(self.state, Leading):
                self.state = await self._stand(self.state)
                if isinstance(self.state, Standby):
                    await self._pause()
            tasks.cancel_scope.cancel()
        self._log.info("this process leads")

    async def keep(self) -> None:
        """Renew until cancelled.

        Raises:
            LeadershipLostError: the Lease could not be renewed in time; the fence is shut.
        """
        while isinstance(self.state, Leading):
            await self._clock.sleep(self._options.retry_period)
            self.state = await self._renew(self.state)
        self._fence.close()
        reason = self.state.reason if isinstance(self.state, Deposed) else "it was never acquired"
        raise LeadershipLostError(f"the lease {self._lock.namespace}/{self._lock.name} is lost: {reason}")

    async def lead(self) -> None:
        """Renew until cancelled, then let go of the Lease. Cancel it when nothing writes any more.

        Raises:
            LeadershipLostError: as ``keep``.
        """
        try:
            await self.keep()
        finally:
            # Half a renewal may be under way when the end comes: it is cut first, then the Lease is read and let go.
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + self._options.request_timeout):
                await self.release()

    async def release(self) -> None:
        """Shut the fence and, if asked for and still held, let go of the Lease."""
        self._fence.close()
        held = self.state
        self.state = Deposed("released")
        if not isinstance(held, Leading) or not self._options.release_on_stop:
            return
        try:
            seen = await self._lock.read()
            if seen is not None and seen.holder == self.identity:
                await self._lock.release(seen, self._clock.now())
                self._log.info("the lease is released")
        except KubeError as error:
            self._log.warning("the lease was not released, the successor waits for its end", error=str(error))

    async def step(self, state: State) -> State:
        """One look or one renewal; the state that follows. Raises nothing but cancellation and bugs."""
        if isinstance(state, Leading):
            return await self._renew(state)
        return await self._stand(state)

    # Standing for election

    async def _stand(self, state: State) -> State:
        known = state if isinstance(state, Standby) else Standby()
        asked = self._clock.monotonic()
        try:
            seen = await self._lock.read()
            if seen is None:
                record = await self._lock.create(self.identity, self._options.lease_duration, self._clock.now())
                return self._lead(record, asked)
            if seen != known.seen:
                known = Standby(seen, self._clock.monotonic())
            if seen.holder not in ("", self.identity) and not self._has_expired(known):
                return known
            asked = self._clock.monotonic()
            record = await self._lock.take(seen, self.identity, self._options.lease_duration, self._clock.now())
        except ConflictError:
            return known  # another candidate was faster
        except KubeError as error:
            self._log.warning("standing for election failed, trying again", error=str(error))
            return known
        return self._lead(record, asked)

    def _has_expired(self, standby: Standby) -> bool:
        return self._clock.monotonic() - standby.since >= self._options.lease_duration

    def _lead(self, record: LeaseRecord, asked: float) -> Leading:
        # Counted from before the request left: the answer may have taken its time.
        self._fence.open_until(asked + self._options.renew_deadline)
        return Leading(record, asked)

    # Leading

    async def _renew(self, state: Leading) -> Leading | Deposed:
        """Try until it succeeds or the deadline has come."""
        deadline = state.renewed + self._options.renew_deadline
        record = state.record
        while (left := deadline - self._clock.monotonic()) > 0:
            with anyio.move_on_after(left):
                asked = self._clock.monotonic()
                try:
                    taken = await self._lock.take(
                        record, self.identity, self._options.lease_duration, self._clock.now()
                    )
                    return self._lead(taken, asked)
                except ConflictError:
                    # Our own earlier attempt may have been carried out without an answer; or we were deposed.
                    fresh = await self._read_again()
                    if fresh is not None and fresh.holder != self.identity:
                        return Deposed(f"{fresh.holder or 'nobody'} holds it")
                    record = fresh or record
                except KubeError as error:
                    self._log.warning("the renewal failed, trying again", error=str(error))
                await self._clock.sleep(self._options.retry_period / 2)
        return Deposed(f"no renewal succeeded within {self._options.renew_deadline} s")

    async def _read_again(self) -> LeaseRecord | None:
        try:
            return await self._lock.read()
        except KubeError as error:
            self._log.warning("the lease cannot be read, trying again", error=str(error))
            return None

    # Waiting as a candidate

    async def _pause(self) -> None:
        self._vacant = anyio.Event()
        with anyio.move_on_after(self._options.retry_period * (1 + JITTER * self._random.random())):
            await self._vacant.wait()

    async def _watch_for_vacancy(self) -> None:
        informer: Informer[LeaseView] = Informer(
            self._client,
            LEASES,
            clock=self._clock,
            random=self._random,
            options=InformerOptions(
                field_selector=f"metadata.name={self._options.name}",
                namespaces=[self._options.namespace],
                resync_period=None,
            ),
        )
        informer.add_handler(self._lease_changed)
        await informer.run()

    def _lease_changed(self, change: Change[LeaseView]) -> None:
        if change.new is None or not change.new.spec.holder_identity:
            self._vacant.set()
