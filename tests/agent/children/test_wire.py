"""The wire between processes: whole messages come out, whatever pieces they travel in, and nothing else does."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.children.wire import Wire, frame


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(messages=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), max_size=5), data=st.data())
def test_messages_survive_any_cut(messages: list[dict[str, object]], data: st.DataObject) -> None:
    ours, theirs = socket.socketpair()
    raw = b"".join(frame(message) for message in messages)
    wire, got = Wire(theirs.fileno()), []
    with ours, theirs:
        while raw:
            size = data.draw(st.integers(1, len(raw)))
            ours.send(raw[:size])
            raw = raw[size:]
            while (message := wire.receive_now()) is not None:
                got.append(message)
        assert wire.receive_now() is None
    assert got == messages


def test_a_message_larger_than_a_pipe_arrives_whole() -> None:
    source, sink = os.pipe()
    there = Wire(source)
    message = {"text": "é\ud800" * 500_000}
    sender = threading.Thread(target=Wire(source, sink).send, args=(message,))
    sender.start()
    assert there.receive() == message
    sender.join()
    os.close(sink)
    with pytest.raises(EOFError):
        there.receive()
    os.close(source)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "closed"),
        (b"\x02\x00\x00\x00{", "closed"),
        (b"\x02\x00\x00\x00{]", "not a message"),
        (b"\x02\x00\x00\x00[]", "not a message"),
        (b"\x02\x00\x00\x00\xff\xff", "not a message"),
        (b"\x01\x10\x00\x00", "a message of 4097 bytes"),
    ],
)
def test_what_is_not_a_message_ends_the_talk(pair: tuple[socket.socket, socket.socket], sent: bytes, said: str) -> None:
    ours, theirs = pair
    ours.sendall(sent)
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError, match=said):
        Wire(theirs.fileno(), most=4096).receive()


def test_who_is_gone_is_told_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    with pytest.raises(OSError, match="roken pipe"):
        Wire(ours.fileno()).send({})
