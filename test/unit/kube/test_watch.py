"""Lines of a watch, however the network cuts them."""

from collections.abc import AsyncIterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.kube.watch import split_lines


async def arriving(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def cut(text: bytes, places: set[int]) -> list[bytes]:
    ends = [*sorted(place for place in places if place < len(text)), len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line)), st.sets(st.integers(1, 200)))
async def test_lines_come_whole_wherever_the_stream_was_cut(lines: list[bytes], places: set[int]) -> None:
    chunks = cut(b"".join(line + b"\n" for line in lines), places)

    assert [line async for batch in split_lines(arriving(chunks)) for line in batch] == lines


async def test_what_arrives_together_comes_together() -> None:
    batches = [batch async for batch in split_lines(arriving([b"one\ntwo\nthr", b"ee\n"]))]

    assert batches == [[b"one", b"two"], [b"three"]]


async def test_an_event_cut_short_by_a_dying_connection_is_dropped() -> None:
    batches = [batch async for batch in split_lines(arriving([b"one\n", b'{"type":"MODI']))]

    assert batches == [[b"one"]]
