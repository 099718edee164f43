"""Tunnels that the status page is told to close: wherever they are at that moment they end, and no others do."""

import contextlib
import signal
import threading
import time

import pytest

from harness import http, relayed, statuspage, steps, wait, websocket
from harness.h2client import Http2Client
from harness.rawclient import RawClient
from test_advice import itk

CODE = 4001
CLOSED = (CODE).to_bytes(2, "big")


@pytest.fixture
def site(httpd, client):
    """A server with a status page, and that page."""

    def make(origin, mpm="event", **options):
        server = httpd(mpm=mpm, extra=options.pop("extra", ()))
        return server, statuspage.start(server, client, origin, **options)

    return make


def opened(server, client, count, path="/"):
    """So many tunnels, wherever they are."""
    talks = [client(server.port) for _ in range(count)]
    for talk in talks:
        assert talk.ask(http.handshake(path)).status == 101
    return talks


def is_closed(talk):
    """Whether a tunnel has got the Close frame. One that has is ended; another one is to go on."""
    with contextlib.suppress(OSError):
        talk.send_frame(websocket.Frame(websocket.BINARY, b"still here"))
    frame = talk.read_frame()
    if frame.opcode == websocket.BINARY:
        assert frame.payload == b"still here"
        return False
    assert frame.payload[:2] == CLOSED, frame
    return True


@pytest.mark.parametrize("relay", ["On", "Off"])
def test_second_order_is_none(site, backend, client, relay):
    server, page = site(backend(), relay=f"WSForwardRelay {relay}")
    talks = opened(server, client, 2)
    [one, _] = page.wait_tunnels(2)
    assert page.close(id=one["id"], code=CODE) == 1
    assert page.close(id=one["id"], code=1012) == 0
    page.wait_tunnels(1)
    assert [is_closed(talk) for talk in talks].count(True) == 1


def test_more_orders_do_not_put_off_the_end_of_one_that_is_stuck(site, backend, client):
    """In a worker thread, where neither side takes what it is sent: it loses both sockets, however many others
    are closed meanwhile."""
    origin = backend()
    server, page = site(origin, relay="WSForwardRelay Off")
    # What mod_proxy says of the client whose socket was shut down.
    server.expect_log("AH10221: ", certain=False)
    flood = steps.repeat(b"\x82\x7e\x10\x00" + bytes(4096), 64 << 20)
    origin.answers_in_turn([steps.switch(), flood], *[[steps.websocket_or_page]] * 8)
    stuck = RawClient(server.port, receive_buffer=4096)
    assert stuck.ask(http.handshake("/stuck")).status == 101
    others = opened(server, client, 8)
    [one] = [one for one in page.wait_tunnels(9) if one["path"] == "/stuck"]
    wait.steady(lambda: next(of["bytes_down"] for of in page.tunnels() if of["id"] == one["id"]))
    assert page.close(id=one["id"], code=CODE) == 1
    for talk in others:
        port = talk.plain.getsockname()[1]
        [other] = [of for of in page.tunnels() if of["port"] == port]
        assert page.close(id=other["id"], code=CODE) == 1
        talk.send_frame(websocket.close_frame(CODE))
        time.sleep(0.75)
        if one["id"] not in [of["id"] for of in page.tunnels()]:
            break
    else:
        raise AssertionError("it is still there")
    server.log.wait_for(r"WSF0202: .*closed-by-admin.*")
    stuck.close()


@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_stream_of_http2(httpd, backend, certificate, mpm):
    """And no other of its connection."""
    origin = backend()
    server = httpd(mpm=mpm, extra=["http2"])
    server.expect_log("WSF0120: H2WebSockets on|AH01909: tunnels.example")
    page = statuspage.start(server, lambda port: RawClient(port, certificate.client_context("tls1.3")), origin,
                            more="Protocols h2 http/1.1\nH2WebSockets on", tls=True)
    with Http2Client(server.port, certificate.client_context("tls1.3", ["h2"])) as h2:
        streams = [h2.websocket(f"/{number}") for number in range(3)]
        assert [stream.status for stream in streams] == [200] * 3
        [one] = [one for one in page.wait_tunnels(3) if one["path"] == "/1"]
        assert page.close(id=one["id"], code=CODE, reason="enough") == 1
        frame = websocket.read_frame(streams[1].read_exactly)
        assert (frame.opcode, frame.payload) == (8, CLOSED + b"enough")
        streams[1].read_to_end()
        page.wait_tunnels(2)
        for stream in (streams[0], streams[2]):
            stream.send(websocket.Frame(websocket.BINARY, b"on").encode(mask=True))
            assert websocket.read_frame(stream.read_exactly).payload == b"on"
        assert page.close(older=0, code=CODE) == 2
        page.wait_tunnels(0)


def test_process_of_mpm_itk(site, backend, client):
    """Each tunnel is in a process of its own, which none of its child's threads is in."""
    server, page = site(backend(), "prefork", relay="", main=f"LoadModule mpm_itk_module {itk()}")
    talks = opened(server, client, 3)
    port = talks[1].plain.getsockname()[1]
    [one] = [one for one in page.wait_tunnels(3) if one["port"] == port]
    assert page.close(id=one["id"], code=CODE) == 1
    # Though it is silent.
    assert talks[1].read_frame().payload[:2] == CLOSED
    talks[1].send_frame(websocket.close_frame(CODE))
    page.wait_tunnels(2)
    assert [is_closed(talk) for talk in (talks[0], talks[2])] == [False, False]
    assert page.close(client="127.0.0.1", code=CODE) == 2
    page.wait_tunnels(0)


def reload_with(server, old, new):
    """A graceful reload with other directives."""
    at = next(at for at, text in enumerate(server._directives) if old in text)
    server._directives[at] = server._directives[at].replace(old, new)
    server.reload()


@pytest.mark.parametrize("mpm", ["event", "prefork"])
@pytest.mark.parametrize("relay", ["On", "Off"])
def test_actions_that_are_turned_on_by_a_reload(httpd, backend, client, mpm, relay):
    """A relayed tunnel of before can be closed. One in a thread of a child that had no such actions cannot, and
    is not said to be."""
    server = httpd(mpm=mpm)
    page = statuspage.start(server, client, backend(), relay=f"WSForwardRelay {relay}", actions="#no")
    [talk] = opened(server, client, 1)
    page.wait_tunnels(1)
    reload_with(server, "#no", statuspage.ACTIONS)
    if relay == "On":
        wait.until(lambda: page.tunnels()[0]["where"] == "drain", lambda: f"{page.tunnels()}")
    assert page.close(client="127.0.0.1", code=CODE) == (1 if relay == "On" else 0)
    assert is_closed(talk) == (relay == "On")


def test_relayed_tunnel_of_a_child_that_cannot_end_yet(httpd, backend, client):
    """Because of a thread that is busy: actions came with the reload, and the tunnel is not in a drain process."""
    origin = backend()
    server = httpd()
    page = statuspage.start(server, client, origin, actions="#no")
    talk = relayed.opened(server, client(server.port))
    [one] = page.wait_tunnels(1)
    release = threading.Event()
    origin.answers(steps.wait_for(release), http.page(), steps.close)
    busy = [client(server.port)]
    for of in busy:
        of.send(http.request("/slow"))
    origin.wait_requests(1 + len(busy))
    assert one["pid"] in [server.serving(of) for of in busy]
    reload_with(server, "#no", statuspage.ACTIONS)
    assert page.close(id=one["id"], code=CODE) == 1
    # Though it is silent.
    assert talk.read_frame().payload[:2] == CLOSED
    talk.send_frame(websocket.close_frame(CODE))
    page.wait_tunnels(0)
    release.set()
    assert {of.read_response().status for of in busy} == {200}


class Opening(threading.Thread):
    """Opens tunnels, one after another."""

    def __init__(self, port, path):
        super().__init__()
        self.port, self.path, self.talks, self.error = port, path, [], None
        self.start()

    def run(self):
        try:
            for _ in range(25):
                talk = RawClient(self.port)
                assert talk.ask(http.handshake(self.path)).status == 101
                self.talks.append(talk)
        except Exception as error:  # whatever it is, the test shows it
            self.error = error

    def end(self):
        self.join(60)
        assert not self.is_alive() and self.error is None, repr(self.error)
        return self.talks


@pytest.mark.parametrize("mpm, relay", [("event", "On"), ("worker", "Off"), ("prefork", "On")])
def test_orders_while_tunnels_open(site, backend, mpm, relay, client):
    """At every moment of a hand-over: all that were told to close do, and nothing else does."""
    origin = backend()
    server, page = site(origin, mpm, relay=f"WSForwardRelay {relay}")
    kept = opened(server, client, 2, "/kept")
    page.wait_tunnels(2)
    keep = {one["id"] for one in page.tunnels()}
    openers = [Opening(server.port, "/go") for _ in range(2)]
    told = 0
    while any(opener.is_alive() for opener in openers):
        # All that there are at this moment, but for those: by their path there is no filter.
        told += sum(page.close(id=one["id"], code=CODE) for one in page.tunnels(limit=12) if one["id"] not in keep)
    talks = [talk for opener in openers for talk in opener.end()]
    assert told > 2
    # Those that have ended by now have got the frame too.
    closed = sum(is_closed(talk) for talk in talks)
    assert closed == told
    page.wait_tunnels(len(talks) - told + 2)
    assert [is_closed(talk) for talk in kept] == [False, False]
    for talk in talks:
        talk.close()
    page.wait_tunnels(2)


@pytest.mark.slow
@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_orders_while_tunnels_change_their_process(site, backend, client, mpm):
    """At reloads, by a fork and through the queue: each of them ends that was told to."""
    server, page = site(backend(), mpm)
    kept = opened(server, client, 2, "/kept")
    keep = {one["id"] for one in page.wait_tunnels(2)}
    for _ in range(5):
        talks = opened(server, client, 8)
        page.wait_tunnels(10)
        server.send_signal(signal.SIGUSR1)
        told = 0
        for one in page.tunnels():
            if one["id"] not in keep:
                told += page.close(id=one["id"], code=CODE)
        assert told == 8
        for talk in talks:
            assert talk.read_frame().payload[:2] == CLOSED
            talk.send_frame(websocket.close_frame(CODE))
        page.wait_tunnels(2)
    assert [is_closed(talk) for talk in kept] == [False, False]


@pytest.mark.parametrize("relay", ["On", "Off"])
def test_what_went_through_a_tunnel_is_counted_once(site, backend, client, relay):
    """In a worker thread as in the relay: while it is open, and when it has ended."""
    server, page = site(backend(), relay=f"WSForwardRelay {relay}")
    [talk] = opened(server, client, 1)
    talk.echoes(b"text", websocket.TEXT)
    talk.echoes(b"binary")
    wait.until(lambda: [page.tunnels()[0][name] for name in ("messages_up", "messages_down")] == [2, 2],
               lambda: f"{page.tunnels()}")  # fmt: skip
    talk.send_frame(websocket.close_frame(1000))
    assert talk.read_frame().opcode == websocket.CLOSE
    talk.close()
    [end] = relayed.ends(server)
    assert (end.client_close, end.origin_close) == (1000, 1000)
    page.wait_metric(1, "messages_total", direction="up", opcode="text")
    page.wait_metric(1, "messages_total", direction="down", opcode="binary")
    page.wait_metric(1, "tunnels_closed_total", code="1000")
    assert page.metric("bytes_total", direction="up") == end.up
    assert page.metric("bytes_total", direction="down") == end.down
