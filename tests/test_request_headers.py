"""Issue section 4: what reaches the back end."""

import threading

import pytest

from harness import config, http, steps, wait, websocket

HOP_BY_HOP = [("Keep-Alive", "timeout=5"), ("TE", "trailers"), ("Trailer", "Expires"),
              ("Proxy-Connection", "keep-alive")]  # fmt: skip
END_TO_END = [("Referer", "http://site.test/page"), ("Cookie", "a=1; session=x"), ("Origin", "http://site.test"),
              ("Authorization", "Basic YTpi"), ("Sec-WebSocket-Protocol", "chat, superchat"),
              ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
              ("User-Agent", "t"), ("X-Custom", "kept"), ("Accept-Language", "de")]  # fmt: skip


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module", params=config.MPM)
def ports(request, shared_httpd, origin):
    server = shared_httpd(mpm=request.param)
    proxied = f'WSForward On\nProxyPass "/" "{origin.url("http")}"\n'
    texts = {
        "": "",
        "preserve host": "ProxyPreserveHost On",
        "request header": """RequestHeader set X-Set "by httpd"
RequestHeader edit Referer page page2
RequestHeader unset Cookie
RequestHeader set Sec-WebSocket-Protocol chat""",
        "no forwarded": "ProxyAddHeaders Off",
    }
    numbers = {name: server.vhost(proxied + text) for name, text in texts.items()}
    server.start()
    return numbers


def test_connection_and_upgrade_are_the_only_ones(ports, origin, client):
    """One Connection: Upgrade and one Upgrade with the client's spelling, whatever the client sent."""
    talk = client(ports[""])
    assert talk.ask(http.handshake(connection=["keep-alive", "Upgrade"], upgrade=["WebSocket", "h2c"])).status == 101
    assert origin.request.all("Connection") == ["Upgrade"]
    assert origin.request.all("Upgrade") == ["WebSocket"]


def test_end_to_end_headers_arrive_unchanged(ports, origin, client):
    assert client(ports[""]).ask(http.handshake("/a/b?c=d&e=%2F", fields=END_TO_END)).status == 101
    for name, value in END_TO_END:
        assert origin.request.all(name) == [value]
    assert origin.request.get("Sec-WebSocket-Key") == websocket.KEY
    assert origin.request.get("Sec-WebSocket-Version") == "13"
    assert origin.request.start == "GET /a/b?c=d&e=%2F HTTP/1.1"


def test_repeated_headers_arrive(ports, origin, client):
    """Sec-WebSocket-Protocol may come in several lines (RFC 6455 11.3.4)."""
    fields = [("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "superchat")]
    assert client(ports[""]).ask(http.handshake(fields=fields)).status == 101
    assert ", ".join(origin.request.all("Sec-WebSocket-Protocol")) == "chat, superchat"


def test_host_is_the_back_ends_unless_preserved(ports, origin, client):
    assert client(ports[""]).ask(http.handshake()).status == 101
    assert origin.request.get("Host") == origin.authority
    assert client(ports["preserve host"]).ask(http.handshake()).status == 101
    assert origin.request.get("Host") == "site.test"


def test_x_forwarded_headers(ports, origin, client):
    assert client(ports[""]).ask(http.handshake()).status == 101
    assert origin.request.get("X-Forwarded-For") == "127.0.0.1"
    assert origin.request.get("X-Forwarded-Host") == "site.test"
    assert origin.request.get("X-Forwarded-Server") == "site.test"
    assert client(ports["no forwarded"]).ask(http.handshake()).status == 101
    assert not [name for name, _ in origin.request.fields if name.startswith("X-Forwarded")]


def test_request_header_directives_count(ports, origin, client):
    assert client(ports["request header"]).ask(http.handshake(fields=END_TO_END)).status == 101
    assert origin.request.get("X-Set") == "by httpd"
    assert origin.request.get("Referer") == "http://site.test/page2"
    assert origin.request.get("Cookie") is None
    assert origin.request.get("Sec-WebSocket-Protocol") == "chat"


@pytest.mark.parametrize("field", HOP_BY_HOP, ids=lambda field: field[0])
def test_hop_by_hop_headers_do_not_arrive(ports, origin, client, field):
    """RFC 9110 7.6.1, whether or not Connection names them."""
    for connection in ("Upgrade", f"Upgrade, {field[0]}"):
        assert client(ports[""]).ask(http.handshake(connection=connection, fields=[field])).status == 101
        assert field[0] not in origin.request


@pytest.mark.parametrize("name", ["X-Custom", "x-custom", "Referer", "Cookie", "Authorization", "User-Agent"])
def test_headers_named_in_connection_do_not_arrive(ports, origin, client, name):
    request = http.handshake(connection=f"Upgrade, {name}", fields=END_TO_END)
    assert client(ports[""]).ask(request).status == 101
    assert name not in origin.request
    assert origin.request.all("Connection") == ["Upgrade"]


@pytest.mark.parametrize("name", ["Host", "Origin", "Sec-WebSocket-Key", "Sec-WebSocket-Version",
                                  "sec-websocket-protocol", "Sec-WebSocket-Extensions"])  # fmt: skip
def test_handshake_headers_named_in_connection_arrive(ports, origin, client, name):
    """An odd client that names them there must not lose its handshake for it."""
    request = http.handshake(connection=f"{name}, Upgrade", fields=END_TO_END)
    answer = client(ports["preserve host"]).ask(request)
    assert answer.status == 101
    sent = {key.lower(): value for key, value in http.Message(request).fields}
    assert origin.request.get(name) == sent[name.lower()]
    assert origin.request.all("Connection") == ["Upgrade"]


@pytest.mark.parametrize("size", [1, 5, 1000, 30_000])
def test_bytes_behind_the_request_are_held_until_the_101(ports, origin, client, size):
    """A client that does not wait: the back end sees nothing of it before its 101, and all of it after."""
    go, seen = threading.Event(), []
    early = bytes(range(256)) * (size // 256) + bytes(size % 256)

    def look(connection):
        seen.append(connection.silent_for(0.2))
        go.set()

    origin.answers(look, steps.switch(), steps.echo, steps.close)
    talk = client(ports[""])
    talk.send(http.handshake() + early)
    assert go.wait(wait.PATIENCE)
    assert talk.read_head().status == 101
    assert talk.read_exactly(size) == early
    assert seen == [True]


def test_bytes_behind_the_request_in_pieces(ports, origin, client):
    """Some bytes with the request, some while the back end thinks, some after the 101."""
    go = threading.Event()
    origin.answers(steps.wait_for(go), steps.switch(), steps.echo, steps.close)
    talk = client(ports[""])
    talk.send(http.handshake() + b"with ")
    origin.wait_requests()
    talk.send(b"before ")
    go.set()
    assert talk.read_head().status == 101
    talk.send(b"after")
    assert talk.read_exactly(17) == b"with before after"


@pytest.mark.parametrize("glued", [True, False])
def test_second_request_behind_a_refused_upgrade_is_answered(ports, origin, client, glued):
    """A refusal leaves plain HTTP behind, so what follows is the next request."""
    origin.answers_in_turn([http.page(b"no\n", "403 Forbidden"), steps.keep], steps.WEBSOCKET_OR_PAGE)
    talk = client(ports[""])
    second = http.request("/second")
    talk.send(http.handshake("/first") + (second if glued else b""))
    assert talk.read_response().status == 403
    if not glued:
        talk.send(second)
    answer = talk.read_response()
    assert (answer.status, answer.body) == (200, b"plain\n")
    assert [asked.target for asked in origin.requests] == ["/first", "/second"]


def test_handshake_behind_a_refused_handshake(ports, origin, client):
    origin.answers_in_turn([http.page(b"no\n", "401 Unauthorized"), steps.keep], steps.WEBSOCKET_OR_PAGE)
    talk = client(ports[""])
    assert talk.ask(http.handshake()).status == 401
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()


def test_access_log_has_the_101(httpd, backend, client):
    origin, server = backend(), httpd()
    port = server.vhost(f'WSForward On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    talk = client(port)
    assert talk.ask(http.handshake("/logged")).status == 101
    talk.close()
    server.wait_idle()
    [line] = [line for line in server.access() if "/logged" in line]
    assert '"GET /logged HTTP/1.1" 101' in line
