"""The log of a command's output: what may be forgotten, and who is waited for."""

import pytest

from agent_sandbox.sandboxd import output_log
from agent_sandbox.sandboxd.output_log import OutputLog, Overflow, Reader


class Log:
    """A log of 10 bytes, and whether its command is held up."""

    def __init__(self, overflow: Overflow = Overflow.BLOCK) -> None:
        self.held = False
        self.log = OutputLog(limit=10, overflow=overflow, hold=self.hold, go_on=self.go_on)

    def hold(self) -> None:
        self.held = True

    def go_on(self) -> None:
        self.held = False

    def write(self, pieces: int) -> None:
        for _ in range(pieces):
            self.log.append(1, b"12345")

    def read(self, reader: Reader) -> None:
        while (piece := self.log.following(reader)) is not None:
            self.log.sent(reader, piece)


async def test_what_is_only_sent_holds_the_command_up_until_it_is_confirmed() -> None:
    made = Log()
    reader = made.log.attach(0, "r")
    made.write(3)
    made.read(reader)
    held_before = made.held
    made.log.confirm(reader, 2)

    assert held_before
    assert not made.held
    assert made.log.gap(made.log.attach(1)) is None


async def test_a_reader_without_a_name_confirms_by_being_sent_to() -> None:
    made = Log()
    reader = made.log.attach(0)
    made.write(3)
    made.read(reader)

    assert not made.held


async def test_more_than_was_sent_cannot_be_confirmed() -> None:
    made = Log()
    reader = made.log.attach(0, "r")
    made.write(3)
    made.log.confirm(reader, 99)

    assert made.held
    assert reader.confirmed == 0


@pytest.mark.parametrize("grace", [60.0, -1.0])
async def test_a_reader_that_stands_still_stops_the_others_for_a_while_only(
    grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_log, "ATTACH_GRACE", grace)
    made = Log()
    alive, dead = made.log.attach(0, "alive"), made.log.attach(0, "dead")
    made.write(3)
    made.read(alive)
    made.log.confirm(alive, 3)

    assert made.held == (grace > 0)
    assert made.log.gap(dead) == (None if grace > 0 else (1, 1))


async def test_the_only_reader_is_waited_for_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_log, "ATTACH_GRACE", -1.0)
    made = Log()
    made.log.attach(0, "slow")
    made.write(3)

    assert made.held


async def test_a_reader_that_comes_anew_gives_up_its_earlier_place() -> None:
    made = Log()
    earlier = made.log.attach(0, "r")
    made.write(3)
    later = made.log.attach(2, "r")

    assert earlier.replaced.is_set()
    assert not later.replaced.is_set()
    assert not made.held
