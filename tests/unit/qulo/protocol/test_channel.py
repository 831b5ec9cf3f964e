"""One end of a session: batches, credit, acks, resending, and what a new session keeps."""

from __future__ import annotations

import pytest

from qulo.errors import ProtocolError
from qulo.protocol.channel import CEILING, FLYING, LAZY_FRAMES, Channel
from qulo.protocol.wire import PUBLISH, SMALL, UNSUBSCRIBE, WORK, Record, decode

LIMIT = 1_000_000


def filled(count: int) -> Channel:
    """A channel with that many frames, one record in each."""
    channel = Channel(LIMIT)
    for number in range(count):
        channel.add([UNSUBSCRIBE, number], 10)
        channel.close_batch()
    return channel


def sids(frames: list[bytes]) -> list[int]:
    """The records' first fields."""
    return [record[1] for frame in frames for record in decode(frame)[2]]


def test_records_of_one_turn_travel_in_one_numbered_frame() -> None:
    channel = Channel(LIMIT)
    for number in range(3):
        channel.add([UNSUBSCRIBE, number], 10)
    (frame,) = channel.take()
    assert decode(frame) == (1, 0, [[UNSUBSCRIBE, 0], [UNSUBSCRIBE, 1], [UNSUBSCRIBE, 2]])
    assert channel.take() == []


def test_the_owner_is_told_once_that_there_is_something_to_take() -> None:
    channel = Channel(LIMIT)
    told: list[int] = []
    channel.mark = lambda: told.append(1)
    channel.add([UNSUBSCRIBE, 1], 10)
    channel.add([UNSUBSCRIBE, 2], 10)
    assert told == [1]


def test_a_batch_ends_before_it_is_too_large_to_be_decoded_whole() -> None:
    channel = Channel(10 * LIMIT)
    for _ in range(10):
        channel.add([PUBLISH, "a", 0, [b"x" * 30_000]], 30_060)
    frames = channel.take()
    assert len(frames) == 5
    assert all(len(frame) <= SMALL for frame in frames)


def test_a_run_too_large_for_a_frame_is_split_and_keeps_its_order() -> None:
    channel = Channel(10 * LIMIT)
    bodies = [str(number).encode() for number in range(50_000)]
    channel.add_run([WORK, 7, "a", 0], bodies)
    frames = channel.take()
    assert all(len(frame) <= SMALL for frame in frames)
    records: list[Record] = [record for frame in frames for record in decode(frame)[2]]
    assert {tuple(record[:4]) for record in records} == {(WORK, 7, "a", 0)}
    assert [body for record in records for body in record[4]] == bodies


def test_one_large_body_is_not_split() -> None:
    channel = Channel(10 * LIMIT)
    channel.add_run([WORK, 7, "a", 0], [b"x" * (CEILING + 1000)])
    assert len(channel.take()) == 1


def test_bytes_are_counted_until_they_are_acknowledged() -> None:
    channel = Channel(LIMIT)
    channel.add([UNSUBSCRIBE, 1], 10)
    assert channel.room == LIMIT - 10
    (frame,) = channel.take()
    assert channel.bytes == len(frame)
    assert not channel.idle
    assert channel.all_sent
    assert channel.acknowledged(1)
    assert channel.bytes == 0
    assert channel.idle


def test_no_more_than_so_many_frames_fly_at_once() -> None:
    channel = filled(FLYING + 5)
    assert len(channel.take()) == FLYING
    assert not channel.all_sent
    channel.acknowledged(3)
    assert sids(channel.take()) == [FLYING, FLYING + 1, FLYING + 2]


def test_refused_frames_are_taken_again_in_order() -> None:
    channel = filled(5)
    channel.take()
    channel.untake(2)
    assert sids(channel.take()) == [3, 4]


def test_numbers_are_accepted_once_and_in_order() -> None:
    channel = Channel(LIMIT)
    assert channel.accept(1, 10)
    assert not channel.accept(1, 10)
    with pytest.raises(ProtocolError):
        channel.accept(3, 10)
    assert channel.received == 1


def test_an_ack_of_what_was_never_sent_is_refused() -> None:
    channel = filled(2)
    channel.take()
    with pytest.raises(ProtocolError):
        channel.acknowledged(3)
    assert not channel.acknowledged(-1)
    assert not channel.idle


def test_acks_travel_alone_when_they_are_urgent_or_many() -> None:
    channel = Channel(LIMIT)
    channel.accept(1, 10)
    assert channel.take() == []
    channel.ack_now = True
    (frame,) = channel.take()
    assert decode(frame) == (0, 1, [])
    for number in range(2, LAZY_FRAMES + 2):
        channel.accept(number, 10)
    assert [decode(frame)[1] for frame in channel.take()] == [LAZY_FRAMES + 1]
    channel.accept(LAZY_FRAMES + 2, LIMIT // 4)  # a good part of what the other side may have unacknowledged
    assert len(channel.take()) == 1
    assert channel.take() == []


def test_a_repeat_is_answered_with_an_ack() -> None:
    channel = Channel(LIMIT)
    channel.accept(1, 10)
    channel.unnumbered([])
    channel.accept(1, 10)
    assert channel.ack_due


@pytest.mark.parametrize("received", [0, 2, 5])
def test_a_new_connection_repeats_what_the_other_side_lacks(received: int) -> None:
    channel = filled(5)
    channel.take()
    channel.rewind(received)
    assert sids(channel.take()) == list(range(received, 5))
    channel.acknowledged(5)
    assert channel.bytes == 0


def test_a_new_session_keeps_the_unsent_and_counts_the_messages_that_were_under_way() -> None:
    channel = Channel(LIMIT)
    channel.add([PUBLISH, "a", 0, [b"1", b"2"]], 60)
    channel.add([UNSUBSCRIBE, 9], 10)
    channel.add([PUBLISH, "b", 0, [b"3"]], 60)
    channel.take()
    channel.accept(1, 10)
    for number in range(3):
        channel.add([UNSUBSCRIBE, number], 10)
        channel.close_batch()
    channel.add([UNSUBSCRIBE, 3], 10)
    assert channel.forget_sent() == {"a": 2, "b": 1}
    frames = channel.take()
    assert [decode(frame)[:2] for frame in frames] == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert sids(frames) == [0, 1, 2, 3]
    assert channel.bytes == sum(map(len, frames))
    channel.acknowledged(4)
    assert channel.bytes == 0


def test_withdrawn_records_are_not_repeated_and_the_numbers_stay() -> None:
    channel = filled(4)
    channel.take()
    channel.add([UNSUBSCRIBE, 9], 10)
    channel.withdraw(lambda record: record[1] in (1, 9))
    channel.rewind(0)
    frames = channel.take()
    assert [decode(frame)[0] for frame in frames] == [1, 2, 3, 4, 5]
    assert sids(frames) == [0, 2, 3]
    assert channel.bytes == sum(map(len, frames))
    channel.acknowledged(5)
    assert channel.bytes == 0
