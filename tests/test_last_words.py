"""What a side says last arrives, though what the other still sends makes its end a reset."""

import threading

import pytest

from harness import procfs, relaysite, steps, wait, websocket
from harness.relaysite import CLIENTS
from harness.websocket import BINARY, TEXT, Frame

pytestmark = pytest.mark.carriers("thread", "relay", "drain")

#: More than a client's socket holds that has room for so little.
ROOM = 65536
MESSAGES = [Frame(BINARY, bytes([65 + n % 26]) * 60_000) for n in range(30)]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins)


def all_of(*frames, mask):
    return b"".join(frame.encode(mask=mask) for frame in frames)


def gone(connection):
    """Whether the kernel knows no more of a back end's connection."""
    here, there = connection.sock_names
    return not procfs.tcp_socket(here, there) and not procfs.tcp_socket(there, here)


def unsent(connection):
    """What the kernel of a back end has not got rid of, in bytes."""
    found = procfs.tcp_socket(*connection.sock_names)
    return found and found[0]


@pytest.mark.parametrize("kind", CLIENTS)
def test_close_of_a_back_end_that_is_sent_more(server, carrier, tunnel, kind):
    """It says all it has to say and a Close, and hangs up, as it may. A message of the client crosses that."""
    server.expect_log("AH", certain=False)
    last, go = websocket.close_frame(1008), threading.Event()

    def speak(connection):
        connection.sock_names = connection.sock.getsockname()[1], connection.sock.getpeername()[1]
        connection.send(all_of(*MESSAGES, last, mask=False))
    talk = tunnel(kind, "tcp", steps.wait_for(go), speak, steps.close, receive_buffer=ROOM)
    go.set()
    wait.until(talk.origin.closed.is_set, "the back end has hung up")
    # What has not come to the server by then is lost with any server: the back end's own kernel drops it.
    wait.until(lambda: not unsent(talk.origin), "all of it is with the server")
    talk.send_frame(Frame(TEXT, b"one more"))
    wait.until(lambda: gone(talk.origin), "it was reset")
    # A client that reads slowly.
    assert [talk.read_frame() for _ in range(len(MESSAGES) + 1)] == [*MESSAGES, last]
    talk.end()
    talk.close()
    carrier.ended(server, talk, "back end|client", "closed|reset")


@pytest.mark.carriers("relay", "drain")
def test_close_of_a_client_that_is_sent_more(server, carrier, tunnel):
    """A program that sends its data and a Close and ends, without reading what the back end says meanwhile."""
    server.expect_log("AH", certain=False)
    go = threading.Event()
    talk = tunnel("plain", "tcp", all_of(*[Frame(TEXT, b"tick")] * 3, mask=False), steps.wait_for(go), steps.drain,
                  steps.close)  # fmt: skip
    here, there = talk.sock.getsockname()[1], talk.sock.getpeername()[1]
    wait.until(lambda: procfs.tcp_socket(here, there)[1] > 0, "the back end has spoken")
    # Until the relay reads no more, since the back end does not: three in a row are all in the server's kernel.
    said, waiting = b"", [0]
    while len(waiting) < 4:
        part = all_of(Frame(BINARY, b"m" * 10_000), mask=True)
        talk.send(part)
        said += part
        wait.until(lambda: procfs.tcp_socket(here, there)[0] == 0, "all of it is with the server")
        unread = procfs.tcp_socket(there, here)[1]
        waiting = [*waiting, unread] if unread == waiting[-1] + len(part) else [unread]
    part = all_of(websocket.close_frame(1001), mask=True)
    talk.send(part)
    said += part
    wait.until(lambda: procfs.tcp_socket(here, there)[0] == 0, "all of it is with the server")
    # What it has not read makes this a reset.
    talk.sock.close()
    wait.until(lambda: not procfs.tcp_socket(there, here), "the server was reset")
    go.set()
    talk.origin.wait_closed()
    assert talk.origin.received == said
    carrier.ended(server, talk, "client", "reset|closed")
