"""Clients that stall, dribble or do not read, at every step from the request to the relay: the worker
thread is back within Timeout, the limits count them meanwhile, and what is only slow is relayed."""

import socket
import threading
import time

import pytest

from harness import http, relayed, relaysite, steps, wait, websocket
from harness.partial import PART, partial, secrets  # noqa: F401
from harness.records import HANDSHAKE, KEY_UPDATE, Records
from harness.relaysite import CLIENTS, dial

MPMS = ["event", "worker", "prefork"]
#: The server's Timeout and ProxyTimeout, in seconds. Within it a test has to see that a worker waits: on a busy
#: machine that takes longer.
TIMEOUT = min(wait.scaled(2.0), 6.0) // 1
#: How much later it may be over, in seconds.
SLACK = 4.0
#: A receive window that is soon full.
TINY = 2048
#: What of an answer the kernel keeps: not more than a client that sips takes within TIMEOUT, so that it
#: has room again and again.
SEND_BUFFER = 16384
#: A KeyUpdate that wants one in return, update_requested (RFC 8446 4.6.3).
ASKING = KEY_UPDATE[:-1] + b"\1"


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module", params=MPMS)
def relay(request, shared_httpd, origins, partial):
    made = shared_httpd(mpm=request.param)
    made.page("big", "x" * (4 << 20))
    # A tunnel that holds a place is the only one.
    made.directives(f"Timeout {TIMEOUT:g}\nProxyTimeout {TIMEOUT:g}\nWSForwardMaxTunnels 1\nSendBufferSize {SEND_BUFFER}")
    # Of a file that core sends itself any number of bytes may wait, whatever comes behind it.
    return relaysite.start(made, origins, f"""EnableSendfile On
ProxyPass "/big" "!"
ProxyPass "/partial" "{partial.url("https")}"
<Location "/never">
    WSForwardIdleTimeout 0
</Location>
<Location "/plain">
    WSForward Off
</Location>""")


@pytest.fixture
def server(relay):
    yield relay
    relayed.wait_figure(relay, "Tunnels", 0)


@pytest.fixture
def records(server, client, certificate, tmp_path):
    """A TLS 1.3 client and the maker of its records."""
    def make(**options):
        context = certificate.client_context("tls1.3")
        context.keylog_filename = str(tmp_path / "keys")
        talk = client(server.ports["tls"], context, **options)
        return talk, Records(talk.sock, tmp_path / "keys")
    return make


def busy(server):
    return int(server.status()["BusyWorkers"]) - 1


class Held:
    """`with Held(server): ...` is what makes a worker wait; by the end of TIMEOUT it is back."""

    def __init__(self, server, counted=True):
        self.server, self.counted = server, counted

    def __enter__(self):
        self.asked = len(self.server.log.matching("WSF0101"))
        self.begin = time.monotonic()

    def __exit__(self, kind, *_):
        if kind:
            return
        server = self.server
        wait.until(lambda: busy(server) == 1, lambda: f"a worker waits; {server.status()}", TIMEOUT)
        if self.counted:
            # What stands before it in the connection may take a while.
            wait.until(lambda: len(server.log.matching("WSF0101")) > self.asked, "it has its place", TIMEOUT)
            with relayed.Counted(server, Refused_max_tunnels=1):
                server.expect_log("WSF0108.*WSForwardMaxTunnels 1 is reached", certain=False)
                with socket.create_connection(("127.0.0.1", server.ports["plain"]), 10) as other:
                    other.sendall(http.handshake())
                    assert other.recv(12) == b"HTTP/1.1 503"
        wait.until(lambda: busy(server) == 0, lambda: f"the worker is back; {server.status()}",
                   self.begin + TIMEOUT + SLACK - time.monotonic())  # fmt: skip


def late(server, why):
    """The one line about a tunnel that could not leave in time, and that of its end."""
    [line] = server.log.wait_for("WSF0206")
    assert b"wsforward:info" in line and f"tunnel ended: {why} within Timeout".encode() in line, line
    [end] = relayed.ends(server)
    assert (end.by, end.where) == ("server", "thread") and "timed out" in end.why, end
    assert not server.log.matching(relayed.STAYS)


# What only splits or delays.


@pytest.mark.parametrize("kind", CLIENTS)
def test_request_and_frame_one_byte_at_a_time(server, origins, client, kind):
    """Each byte is a segment, and a TLS record, of its own."""
    talk = dial(server, client, kind)
    with relayed.Counted(server, HandedOver=1, open=1):
        for byte in http.handshake() + websocket.Frame(websocket.TEXT, b"dribble").encode(mask=True):
            talk.send(bytes([byte]))
        assert talk.read_head().status == 101
        assert talk.read_frame().payload == b"dribble"
    talk.close()


@pytest.mark.parametrize("kind", CLIENTS)
def test_split_at_every_byte_around_the_head(server, origins, client, kind):
    """The request's last bytes and a frame glued to it, in two parts, wherever the cut is."""
    request, frame = http.handshake(), websocket.Frame(websocket.TEXT, b"glued").encode(mask=True)
    both = request + frame
    for at in range(len(request) - 4, len(both)):
        talk = dial(server, client, kind)
        talk.send(both[:at])
        if at >= len(request):
            assert talk.read_head().status == 101
        talk.send(both[at:])
        if at < len(request):
            assert talk.read_head().status == 101
        assert talk.read_frame().payload == b"glued"
        relayed.wait_figure(server, "Tunnels", 1)
        talk.close()
        relayed.wait_figure(server, "Tunnels", 0)


class Capture:
    """A socket that keeps what is sent."""

    def __init__(self, sock):
        self.sock, self.sent = sock, bytearray()

    def send(self, data):
        self.sent += data
        return len(data)

    def __getattr__(self, name):
        return getattr(self.sock, name)


@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_tls_record_split_at_every_byte(server, origins, client, kind):
    """A record that is there in part goes along with its session."""
    frame = websocket.Frame(websocket.TEXT, b"record").encode(mask=True)
    at, size = 1, 2
    while at < size:
        talk = dial(server, client, kind)
        tls, sock = talk.sock, talk.sock.sock
        tls.sock = capture = Capture(sock)
        talk.send(http.handshake())
        head = len(capture.sent)
        talk.send(frame)
        tls.sock, size = sock, len(capture.sent) - head
        sock.sendall(capture.sent[: head + at])
        assert talk.read_head().status == 101
        relayed.wait_figure(server, "Tunnels", 1)
        sock.sendall(capture.sent[head + at :])
        assert talk.read_frame().payload == b"record"
        talk.close()
        relayed.wait_figure(server, "Tunnels", 0)
        at += 1 if at < 8 else 5


@pytest.mark.parametrize("count", range(1, PART))
def test_message_whose_head_is_not_complete_goes_along(server, origins, records, count):
    """Of less than a message's head OpenSSL makes nothing yet."""
    talk, raw = records()
    raw.sock.sendall(raw.record(http.handshake()) + raw.record(KEY_UPDATE[:count], HANDSHAKE))
    assert talk.read_head().status == 101
    relayed.wait_figure(server, "Tunnels", 1)
    raw.send(KEY_UPDATE[count:], HANDSHAKE)
    raw.update_key()
    raw.send(websocket.Frame(websocket.TEXT, b"after").encode(mask=True))
    assert talk.read_frame().payload == b"after"
    talk.close()


@pytest.mark.parametrize("to", relaysite.ORIGINS)
def test_key_update_that_is_completed_is_relayed(server, origins, records, to):
    """The tunnel waits for as long as the message is not complete, and then leaves."""
    first, then = threading.Event(), threading.Event()
    origins[to].answers(steps.switch(), steps.wait_for(first), b"meanwhile", steps.wait_for(then),
                        steps.websocket_echo, steps.close)  # fmt: skip
    talk, raw = records()
    with relayed.Counted(server, HandedOver=1, open=1):
        # In one segment: it is there when the loop begins.
        path = "/" if to == "tcp" else "/tls/"
        raw.sock.sendall(raw.record(http.handshake(path)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
        assert talk.read_head().status == 101
        wait.until(lambda: busy(server) == 1, "the tunnel waits in its thread")
        first.set()
        assert not server.log.matching(relayed.HANDED_OVER)
        raw.send(KEY_UPDATE[PART:], HANDSHAKE)
        raw.update_key()
        server.log.wait_for(relayed.HANDED_OVER)
        wait.until(lambda: busy(server) == 0, "its worker is back")
        assert talk.read_exactly(9) == b"meanwhile"
        then.set()
        raw.send(websocket.Frame(websocket.TEXT, b"after").encode(mask=True))
        assert talk.read_frame().payload == b"after"
    talk.close()


def switch_and_part(secrets, go):
    """The 101 and, glued to it, a part of a KeyUpdate; the rest once the test says so, and a frame."""
    def step(connection):
        raw, parts = Records(connection.sock, secrets, "SERVER_TRAFFIC_SECRET_0"), []
        connection.send = parts.append
        steps.switch()(connection)
        raw.sock.sendall(raw.record(b"".join(parts)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
        steps.wait_for(go)(connection)
        if go.is_set():
            raw.send(KEY_UPDATE[PART:], HANDSHAKE)
            raw.update_key()
            raw.send(websocket.Frame(websocket.TEXT, b"after").encode(mask=False))
    return step


@pytest.mark.parametrize("kind", CLIENTS)
def test_key_update_of_the_back_end_that_is_completed_is_relayed(server, partial, secrets, client, kind):
    go = threading.Event()
    partial.answers(switch_and_part(secrets, go), steps.silence)
    talk = dial(server, client, kind)
    with relayed.Counted(server, HandedOver=1, open=1):
        assert talk.ask(http.handshake("/partial/")).status == 101
        wait.until(lambda: busy(server) == 1, "the tunnel waits in its thread")
        go.set()
        assert talk.read_frame().payload == b"after"
    talk.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIENTS)
def test_key_update_of_the_back_end_that_is_never_completed(server, partial, secrets, client, kind):
    go = threading.Event()
    partial.answers(switch_and_part(secrets, go), steps.silence)
    talk = dial(server, client, kind)
    with Held(server):
        assert talk.ask(http.handshake("/partial/")).status == 101
    late(server, "a TLS message of the back end was not completed")
    talk.close()


# What stalls.


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIENTS)
def test_request_that_stalls(server, client, kind):
    """httpd's own: nothing is counted before there is a request."""
    talk = dial(server, client, kind)
    with Held(server, counted=False):
        talk.send(http.handshake()[:-3])
    talk.close()


@pytest.mark.parametrize("path", ["/", "/never"])
def test_key_update_that_is_never_completed(server, origins, records, path):
    talk, raw = records()
    with Held(server):
        raw.sock.sendall(raw.record(http.handshake(path)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
        assert talk.read_head().status == 101
    late(server, "a TLS message of the client was not completed")
    talk.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/never"])
def test_key_update_that_is_never_completed_while_bytes_flow(server, origins, records, path):
    """Each of them begins the wait of mod_proxy's loop anew."""
    origins["tcp"].answers(steps.switch(), steps.drip(b"x" * 1000, TIMEOUT / 20), steps.silence)
    talk, raw = records()
    with Held(server):
        raw.sock.sendall(raw.record(http.handshake(path)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
        assert talk.read_head().status == 101
    late(server, "a TLS message of the client was not completed")
    talk.close()


@pytest.mark.slow
def test_key_update_that_dribbles(server, origins, records):
    """A byte of the missing record every now and then does not begin the time anew."""
    talk, raw = records()
    with Held(server):
        raw.sock.sendall(raw.record(http.handshake()) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
        assert talk.read_head().status == 101
        for byte in raw.record(KEY_UPDATE[PART:], HANDSHAKE)[:3]:
            assert talk.silent_for(TIMEOUT / 5)
            raw.sock.sendall(bytes([byte]))
    late(server, "a TLS message of the client was not completed")
    talk.close()


@pytest.mark.parametrize("where", ["relay", pytest.param("drain", marks=pytest.mark.slow)])
def test_key_update_in_the_relay_that_is_never_completed(server, origins, records, where):
    """OpenSSL holds room for it, which an idle tunnel has not."""
    talk, raw = records()
    raw.send(http.handshake())
    assert talk.read_head().status == 101
    server.log.wait_for(relayed.HANDED_OVER)
    if where == "drain":
        before = set(server.children)
        server.reload()
        wait.until(lambda: not before & set(server.children), "its child has left it to a drain process")
    raw.send(KEY_UPDATE[:PART], HANDSHAKE)
    [end] = relayed.ends(server)
    assert (end.by, end.why) == ("client", "tls: a message that came in part was not completed in time"), end
    assert end.seconds >= TIMEOUT
    talk.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/never"])
def test_key_update_and_a_client_that_does_not_read(server, origins, records, path):
    """Nothing is written to it meanwhile that could wait in its turn."""
    origins["tcp"].answers(steps.switch(), steps.repeat(b"x" * 65536, 1 << 28), steps.silence)
    talk, raw = records(receive_buffer=TINY)
    with Held(server):
        raw.sock.sendall(raw.record(http.handshake(path)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
    talk.close()


@pytest.mark.slow
def test_key_updates_whose_answers_are_not_taken(server, origins, records):
    """httpd would wait for each of them, up to Timeout and anew for each; the relay waits for none."""
    talk, raw = records(receive_buffer=TINY)
    bytes_of_it = [raw.record(http.handshake())]
    try:
        # The answers to the first ones are more than the sockets' buffers. Not all at once: a busy machine would
        # make them for longer than Timeout.
        for _ in range(5):
            for _ in range(2000):
                bytes_of_it.append(raw.record(ASKING, HANDSHAKE))
                raw.update_key()
            raw.sock.sendall(b"".join(bytes_of_it))
            bytes_of_it.clear()
    except (ConnectionResetError, BrokenPipeError):
        # The relay keeps only so many.
        pass
    server.log.wait_for(relayed.HANDED_OVER)
    wait.until(lambda: busy(server) == 0, "the worker is back")
    assert not server.log.matching(relayed.STAYS)
    talk.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/never"])
@pytest.mark.parametrize("kind", CLIENTS)
def test_client_that_does_not_take_the_101(server, origins, client, kind, path):
    """Requests before it have filled the socket."""
    if server.mpm == "event":
        pytest.skip("it serves no request while an answer before it waits to be sent")
    server.expect_log("AH03307|AH10221", certain=False)
    talk = dial(server, client, kind, receive_buffer=TINY)
    with Held(server, counted=kind == "plain"):
        talk.sock.settimeout(0.5)
        try:
            talk.send(http.request("/big") * 2 + http.handshake(path))
        except TimeoutError:
            pass
    talk.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/never"])
def test_client_that_takes_the_101_slowly(server, origins, client, path):
    """A few bytes now and then do not begin the time anew: what is before the 101 may be very much."""
    if server.mpm == "event":
        pytest.skip("it serves no request while an answer before it waits to be sent")
    server.expect_log("AH03307|AH10221", certain=False)
    talk = dial(server, client, "plain", receive_buffer=TINY)
    go = threading.Event()

    def sip():
        while not go.wait(TIMEOUT / 10):
            try:
                talk.sock.recv(4 * TINY)
            except OSError:
                return
    sipping = threading.Thread(target=sip)
    try:
        with Held(server):
            talk.send(http.request("/big") * 2 + http.handshake(path))
            sipping.start()
    finally:
        go.set()
        sipping.join()
    talk.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/never"])
@pytest.mark.parametrize("kind", ["tls1.2", "tls1.3"])
def test_client_that_ends_its_sending_at_once(server, origins, client, kind, path):
    """There is nothing to relay from it: the tunnel stays, counted, and no longer than with stock httpd."""
    first, then = threading.Event(), threading.Event()
    origins["tcp"].answers(steps.wait_for(first), steps.switch(), steps.wait_for(then))
    talk = dial(server, client, kind)
    with Held(server):
        talk.send(http.handshake(path)).half_close()
        origins["tcp"].wait_requests()
        first.set()
        assert talk.read_head().status == 101
        # What is counted of it is counted by then.
        [line] = server.log.wait_for(relayed.STAYS)
    [end] = relayed.ends(server)
    assert (end.by, end.why, end.where) == ("server", "idle-timeout", "thread")
    assert b"one side has already ended" in line
    then.set()
    talk.close()


def test_tunnel_is_relayed_after_all_of_them(server, client):
    """The place is free again."""
    with relayed.Counted(server, HandedOver=1, open=1):
        relayed.opened(server, dial(server, client, "plain")).echoes()
