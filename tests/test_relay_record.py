"""What a relayed tunnel leaves behind: the lines at its hand-over and at its end, and the access log."""

import threading
import time

import pytest

from harness import http, relayed, relaysite, steps, wait, websocket
from harness.h2client import Http2Client
from harness.relaysite import CLIENTS, dial

MPMS = ["event", "worker", "prefork"]


@pytest.fixture
def origins(backend):
    return relaysite.origins(backend)


@pytest.mark.parametrize("unique_id", [True, False], ids=["unique_id", "log id"])
@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("mpm", MPMS)
def test_lines_of_a_tunnel(httpd, origins, client, mpm, kind, unique_id):
    """One debug line at the hand-over and one info line at the end, tied to the access log's by an id."""
    server = httpd(mpm=mpm, extra=["unique_id"] if unique_id else [])
    form = "%{UNIQUE_ID}e" if unique_id else "%L"
    server.directives(f'LogFormat "{form} %>s %X %a %{{remote}}p" ids\nCustomLog ids.log ids')
    relaysite.start(server, origins, "CustomLog ids.log ids")
    talk = relayed.opened(server, dial(server, client, kind))
    peer, begin = "%s:%d" % talk.plain.getsockname(), time.monotonic()
    talk.echoes(b"x" * 1000)
    talk.send_frame(websocket.close_frame(4321))
    assert talk.read_frame().opcode == websocket.CLOSE
    talk.end()
    talk.close()
    [end] = relayed.ends(server)
    took = time.monotonic() - begin

    [handed] = server.log.matching(relayed.HANDED_OVER)
    assert b"wsforward:debug" in handed
    assert f"[{end.id}] {peer} -> {origins['tcp'].authority}" in handed.decode()
    [line] = server.log.matching(relayed.ENDED)
    assert b"wsforward:info" in line
    assert (end.client, end.origin) == (peer, origins["tcp"].authority)
    # A frame of 1000 bytes has a head of 4 bytes, and of 8 with its mask; the Close 4 and 8.
    assert (end.up, end.down) == (1008 + 8, 1004 + 4)
    # The back end closes when it has answered the Close.
    assert (end.by, end.why, end.client_close, end.origin_close) == ("back end", "closed", 4321, 4321)
    assert 0 <= end.seconds <= took + 1

    def entries():
        lines = (server.directory / "ids.log").read_text().splitlines()
        return [line.split() for line in lines if line.split()[1] == "101"]
    # Another thread than the relay's writes it.
    [entry] = wait.until(entries, "the tunnel's line in the access log")
    assert entry[0] == end.id
    assert entry[2] == "-", "aborted, as far as the access log knows"
    assert f"{entry[3]}:{entry[4]}" == peer


WHERE = {"relay off": ("WSForwardRelay Off", "plain"), "fallback": ("DumpIOInput On\nLogLevel dumpio:trace7", "plain"),
         "fallback, TLS": ("DumpIOInput On\nLogLevel dumpio:trace7", "tls1.3")}  # fmt: skip


@pytest.mark.parametrize("end", ["client", "back end", "both close", "client resets"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mpm", MPMS)
def test_line_of_a_tunnel_in_a_thread(httpd, origins, client, mpm, where, end):
    """The same line as of the relay's, with where it was."""
    more, kind = WHERE[where]
    server = relaysite.start(httpd(mpm=mpm, extra=["dumpio"]), origins, more)
    server.expect_log("AH03307|AH10221", certain=False)
    if end == "back end":
        origins["tcp"].answers(steps.switch(), b"g" * 777, steps.close)
    talk = dial(server, client, kind)
    peer, begin = "%s:%d" % talk.plain.getsockname(), time.monotonic()
    assert talk.ask(http.handshake()).status == 101
    up, down = 0, 0
    if end == "back end":
        down = len(talk.read_to_end())
        talk.half_close()
    else:
        talk.echoes(b"x" * 1000)
        up, down = 1008, 1004
    if end == "both close":
        talk.send_frame(websocket.close_frame(4321))
        assert talk.read_frame().opcode == websocket.CLOSE
        up, down = up + 8, down + 4
        talk.end()
        talk.half_close()
    elif end == "client":
        talk.half_close()
        talk.end()
    elif end == "client resets":
        talk.reset()
    [line] = relayed.ends(server)
    took = time.monotonic() - begin
    by, why = {"client": ("client", "closed"), "client resets": ("client", "reset")}.get(end, ("back end", "closed"))
    assert (line.client, line.origin, line.by, line.why) == (peer, origins["tcp"].authority, by, why)
    assert (line.up, line.down, line.where) == (up, down, "thread")
    assert 0 <= line.seconds <= took + 1
    assert b"wsforward:info" in server.log.matching(relayed.ENDED)[0]
    talk.close()


@pytest.mark.parametrize("mpm", ["event", "worker"])
@pytest.mark.parametrize("by", ["client", "back end"])
def test_line_of_a_stream_of_http2(httpd, origins, certificate, mpm, by):
    server = httpd(mpm=mpm, extra=["http2"])
    server.expect_log("WSF0120: H2WebSockets on")
    relaysite.start(server, origins, "Protocols h2 http/1.1\nH2WebSockets on")
    if by == "back end":
        origins["tcp"].answers(steps.switch(), b"g" * 777, steps.close)
    with Http2Client(server.ports["tls"], certificate.client_context("tls1.3", ["h2"])) as h2:
        stream = h2.websocket()
        assert stream.status == 200
        if by == "back end":
            assert stream.read_to_end() == b"g" * 777
        else:
            frame = websocket.Frame(websocket.BINARY, b"x" * 1000)
            stream.send(frame.encode(mask=True))
            assert websocket.read_frame(stream.read_exactly) == frame
            stream.end()
        [line] = relayed.ends(server)
    assert (line.by, line.why, line.where) == (by, "closed", "thread")
    assert (line.up, line.down) == ((0, 777) if by == "back end" else (1008, 1004))


def test_ids_of_many_tunnels_differ(httpd, origins, client):
    server = relaysite.start(httpd(), origins)
    for _ in range(20):
        talk = relayed.opened(server, dial(server, client, "plain"))
        talk.send_frame(websocket.close_frame(1000))
        talk.half_close()
        talk.end()
    assert len({end.id for end in relayed.ends(server, 20)}) == 20


def test_no_line_of_ours_at_the_default_level(httpd, origins, client):
    """A site with LogLevel warn is not filled with tunnels; the access log has them."""
    server = httpd()
    relaysite.start(server, origins, "LogLevel warn wsforward:warn")
    server.directives("LogLevel warn wsforward:warn")
    server.reload()
    server.log.open_span()
    talk = relayed.opened(server, dial(server, client, "plain"))
    talk.send_frame(websocket.close_frame(1000))
    talk.half_close()
    talk.end()
    talk.close()
    relayed.wait_figure(server, "Tunnels", 0)
    # Another thread writes it.
    wait.until(lambda: any(" 101 " in line for line in server.access()), "the line of the access log")
    assert not server.log.matching("WSF0")


@pytest.mark.parametrize("to", ["tcp", "tls"])
def test_bytes_are_those_of_the_tunnel_and_not_of_tls(httpd, origins, client, to):
    server = relaysite.start(httpd(), origins)
    handed_over = threading.Event()
    origins[to].answers(steps.switch(), steps.wait_for(handed_over), b"g" * 777, steps.drain, b"!", steps.close)
    with relayed.Counted(server, BytesUp=10_000, BytesDown=778, Ended_closed=1):
        talk = relayed.opened(server, dial(server, client, "tls1.3"), "/" if to == "tcp" else "/tls/")
        # What came before may have gone through the thread, which the relay's figures do not count.
        handed_over.set()
        talk.send(b"x" * 10_000)
        talk.half_close()
        assert talk.read_exactly(778) == b"g" * 777 + b"!"
        [end] = relayed.ends(server)
        assert (end.up, end.down) == (10_000, 778)


def test_status_page_for_people(httpd, origins, client):
    """The HTML page has the same figures as `?auto`."""
    server = relaysite.start(httpd(), origins)
    relayed.opened(server, dial(server, client, "plain"))
    page = client(server._status).ask(http.request("/", fields=[("Connection", "close")])).body.decode()
    assert "<h2>WebSocket tunnels (mod_wsforward)</h2>" in page
    assert '<tr><td>Relayed tunnels open</td><td align="right">1</td></tr>' in page
    assert page.count("<tr><td>") >= len(relayed.figures(server))
