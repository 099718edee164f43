"""WSForwardMaxLifetime and WSFORWARD_EXPIRES: the same end wherever the tunnel is carried."""

import re
import threading
import time

import pytest

from harness import http, relayed, relaysite, steps, wait, websocket
from harness.h2client import Http2Client

pytestmark = pytest.mark.carriers("thread", "relay", "drain", "http2")

#: Both limits, in seconds: longer than a tunnel needs to come to a drain process.
LIMIT = 3
#: How much later an end may come, in seconds, with the time for the peers' answers.
SLACK = 4.0
SITES = f"""<LocationMatch "^(/tls)?/lifetime">
    WSForwardMaxLifetime {LIMIT}
</LocationMatch>
<LocationMatch "^(/tls)?/expires">
    SetEnv WSFORWARD_EXPIRES +{LIMIT}
</LocationMatch>
<Location "/past">
    SetEnv WSFORWARD_EXPIRES 1000000000
</Location>
<Location "/garbage">
    SetEnv WSFORWARD_EXPIRES soon
</Location>
<Location "/empty">
    SetEnv WSFORWARD_EXPIRES ""
</Location>
<Location "/once">
    ProxyPass "!"
    RewriteEngine On
    RewriteRule "^" "/behind" [E=WSFORWARD_EXPIRES:1000000000]
</Location>
<Location "/twice">
    ProxyPass "!"
    RewriteEngine On
    RewriteRule "^" "/again" [E=WSFORWARD_EXPIRES:1000000000]
</Location>
<Location "/again">
    ProxyPass "!"
    RewriteEngine On
    RewriteRule "^" "/behind"
</Location>
RewriteEngine On
RewriteRule "^/rewritten" "-" [E=WSFORWARD_EXPIRES:1000000000]
SetEnvIf Request_URI "^/setenvif" WSFORWARD_EXPIRES=1000000000
SetEnvIfExpr "%{{REQUEST_URI}} =~ m#^/expr#" WSFORWARD_EXPIRES=1000000000
RequestHeader set X-Expires "expr=%{{QUERY_STRING}}" early
SetEnvIf X-Expires "^([0-9]+)$" WSFORWARD_EXPIRES=$1
"""
#: A session, and the rules that read its end, as docs/security.md has them.
SESSION = f"""<LocationMatch "^(/tls)?/(session|login)">
    Session On
    SessionCookieName session path=/
    SessionEnv On
    SessionMaxAge {LIMIT}
    SessionHeader X-Replace-Session
</LocationMatch>
RewriteCond %{{IS_SUBREQ}} =false
RewriteCond %{{LA-U:ENV:HTTP_SESSION}} !(?:^|&)user=
RewriteRule "^/session" "-" [F]
RewriteCond %{{LA-U:ENV:HTTP_SESSION}} (?:^|&)expiry=(\\d+)\\d{{6}}(?:&|$)
RewriteRule "^/session" "-" [E=WSFORWARD_EXPIRES:%1]
"""
LIMITS = {"/lifetime": (1001, "lifetime"), "/expires": (1008, "expired")}


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, SITES + SESSION, extra=["session", "session_cookie"])


def took(end):
    assert LIMIT - 1.0 <= end.seconds < LIMIT + wait.scaled(SLACK), end


@pytest.mark.parametrize("to", relaysite.ORIGINS)
@pytest.mark.parametrize("kind", ["plain", "tls1.3"])
@pytest.mark.parametrize("path", LIMITS)
def test_both_sides_get_a_close(server, carrier, tunnel, path, kind, to):
    """Though neither of them is silent for long."""
    code, why = LIMITS[path]
    seen = []

    def serve(connection):
        while True:
            frame = websocket.read_frame(connection.recv_exactly)
            connection.send(frame.encode(mask=False))
            seen.append(frame)
            if frame.opcode == websocket.CLOSE:
                return

    talk = tunnel(kind, to, serve, steps.close, path=path)
    got = None
    while got is None or got.opcode != websocket.CLOSE:
        try:
            talk.send_frame(websocket.Frame(websocket.TEXT, b"busy"))
        except OSError:
            pass
        got = talk.read_frame()
        time.sleep(0.05)
    assert got == websocket.close_frame(code)
    try:
        talk.send_frame(got)
    except OSError:
        pass
    talk.end()
    talk.close()
    took(carrier.ended(server, talk, "server", why))
    assert seen[-1] == websocket.close_frame(code)


@pytest.mark.parametrize("path", LIMITS)
def test_a_silent_tunnel_ends_too(server, carrier, tunnel, path):
    """Nobody answers the Close: the end comes all the same."""
    code, why = LIMITS[path]
    talk = tunnel(None, "tcp", steps.drain, steps.close, path=path)
    assert talk.read_frame() == websocket.close_frame(code)
    talk.end()
    talk.close()
    took(carrier.ended(server, talk, "server", why))


@pytest.mark.slow
@pytest.mark.parametrize("path", LIMITS)
def test_within_a_frame_nothing_is_inserted(server, carrier, tunnel, path):
    half = websocket.Frame(websocket.BINARY, b"x" * 100).encode(mask=False)[:50]
    talk = tunnel(None, "tcp", half, steps.drain, steps.close, path=path)
    assert talk.read_to_end() == half
    talk.close()
    took(carrier.ended(server, talk, "server", LIMITS[path][1]))


@pytest.mark.carriers("thread", "relay")
def test_one_that_is_half_closed_ends_too(server, carrier, tunnel):
    go = threading.Event()
    talk = tunnel("plain", "tcp", steps.half_close, steps.wait_for(go), steps.close, path="/lifetime")
    relayed.ends(server)
    go.set()
    talk.close()
    took(carrier.ended(server, talk, "server|client|back end", "lifetime|reset|closed"))


@pytest.fixture
def ask(carrier, server, client, certificate):
    opened = []

    def ask(path):
        if carrier.name != "http2":
            return client(server.ports["plain"]).ask(http.handshake(path)).status
        talk = Http2Client(server.ports["tls"], certificate.client_context("tls1.3", ["h2"]))
        opened.append(talk.sock)
        return talk.websocket(path).status

    yield ask
    for sock in opened:
        sock.close()


@pytest.mark.carriers("thread", "relay", "http2")
@pytest.mark.parametrize("path", ["/past", "/rewritten", "/once", "/twice", "/setenvif", "/expr", "/header?1000000000"])
def test_what_has_expired_does_not_begin(server, origins, ask, path):
    seen = len(origins["tcp"].connections)
    with relayed.Counted(server, Refused_expired=1):
        assert ask(path) == 403
    assert len(origins["tcp"].connections) == seen
    assert server.log.matching("WSF0141")


@pytest.mark.carriers("thread", "relay", "http2")
@pytest.mark.parametrize("path", ["/garbage", "/empty"])
def test_garbage_is_no_tunnel(server, origins, ask, path):
    server.expect_log('WSF0142: .*WSFORWARD_EXPIRES is ."?(soon)?')
    seen = len(origins["tcp"].connections)
    assert ask(path) == 500
    assert len(origins["tcp"].connections) == seen


@pytest.mark.carriers("thread", "relay")
def test_the_tunnel_ends_with_the_session(server, carrier, origins, client):
    """mod_session's, in a cookie. Its expiry is in microseconds."""
    origins["tcp"].answers(http.page(b"welcome", fields=[("X-Replace-Session", "user=somebody")]))
    with client(server.ports["plain"]) as talk:
        answer = talk.ask(http.request("/login"))
    [cookie] = re.findall(r"session=([^;]*)", answer.get("Set-Cookie"))
    [expiry] = re.findall(r"expiry=(\d+)", cookie)
    left = int(expiry) / 1e6 - time.time()
    assert 0 < left <= LIMIT

    def ask():
        talk = client(server.ports["plain"])
        return talk, talk.ask(http.handshake("/session", fields=[("Cookie", f"session={cookie}")]))

    origins["tcp"].answers(steps.switch(), steps.websocket_echo, steps.close)
    talk, answer = ask()
    assert answer.status == 101
    talk.origin = origins["tcp"].connections[-1]
    assert talk.read_frame() == websocket.close_frame(1008)
    late = time.time() - int(expiry) / 1e6
    # The part of a second that the rule leaves out.
    assert -1.0 <= late < wait.scaled(1.0), late
    talk.end()
    talk.close()
    carrier.ended(server, talk, "server", "expired")
    # Nor does another one begin then.
    talk, answer = ask()
    assert answer.status == 403
    talk.close()


@pytest.mark.parametrize("mpm", ["event", "prefork"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_back_end_on_a_unix_socket_gets_its_close(httpd, backend, client, certificate, mpm, tls):
    """While it is sending, in a worker thread: whoever shuts a unix socket for reading breaks its peer's sending."""
    origin, got = backend(unix=True), []

    def send(connection):
        def listen():
            got.append(websocket.read_frame(connection.recv_exactly))
            heard.set()
        heard = threading.Event()
        threading.Thread(target=listen, daemon=True).start()
        while not heard.is_set():
            try:
                connection.send(websocket.Frame(websocket.TEXT, b"busy").encode(mask=False))
            except OSError as error:
                if not heard.is_set():
                    got.append(error)
                return
            # Each frame is read as a whole: within one there would be no Close for the client.
            time.sleep(0.001)

    server = httpd(mpm=mpm)
    port = server.vhost(f"""WSForward On
WSForwardMaxLifetime 1s
ProxyPass "/" "{origin.url("http")}\"""", tls=tls)
    server.start()
    origin.answers(steps.switch(), send, steps.close)
    talk = client(port, certificate.client_context("tls1.3") if tls else None)
    assert talk.ask(http.handshake()).status == 101
    frame = talk.read_frame()
    while frame.opcode == websocket.TEXT:
        frame = talk.read_frame()
    assert frame == websocket.close_frame(1001)
    talk.send_frame(frame)
    talk.read_to_end()
    talk.close()
    [end] = relayed.ends(server)
    assert (end.by, end.why, end.where) == ("server", "lifetime", "thread")
    wait.until(lambda: got == [websocket.close_frame(1001)], lambda: f"the back end's Close: {got}")
