"""Issue section 5: a 101 that is right, and every way for it to be wrong (RFC 6455 4.1)."""

import pytest

from harness import http, steps, websocket

SWITCH = "HTTP/1.1 101 Switching Protocols"
RIGHT = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", websocket.ACCEPT)]


def head(fields=RIGHT, start=SWITCH):
    """The bytes of a 101 that answers websocket.KEY."""
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in fields), "", ""]).encode()


def but(name, *values):
    """The right fields with those of one name replaced."""
    return [f for f in RIGHT if f[0] != name] + [(name, value) for value in values]


@pytest.fixture(scope="module")
def origin(shared_backend):
    return shared_backend()


@pytest.fixture(scope="module")
def server(shared_httpd, origin):
    made = shared_httpd()
    made.port = made.vhost(f"""WSForward On
ProxyPass "/opaque" "{origin.url("http", "/opaque")}" upgrade=my/1
ProxyPass "/" "{origin.url("http")}"
<Location "/opaque">
    WSForwardProtocols my/1
</Location>""")
    return made.start()


OFFER = [("Sec-WebSocket-Protocol", "chat, superchat"),
         ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits, x-other")]  # fmt: skip


def assert_passes(server, origin, client, *script, fields=OFFER):
    origin.answers(*script, steps.websocket_echo, steps.close)
    talk = client(server.port)
    answer = talk.ask(http.handshake(fields=fields))
    assert answer.status == 101
    talk.echoes()
    return answer


def test_end_to_end_headers_of_a_101(server, origin, client):
    """Set-Cookie twice, the choice of subprotocol and extension, and headers nobody knows."""
    fields = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("Sec-WebSocket-Protocol", "superchat"),
              ("Sec-WebSocket-Extensions", "permessage-deflate; server_no_context_takeover"),
              ("X-Custom", "kept"), ("Server", "origin")]  # fmt: skip
    answer = assert_passes(server, origin, client, head(RIGHT + fields))
    assert answer.all("Set-Cookie") == ["a=1; Path=/", "b=2"]
    for name, value in fields[2:-1] + RIGHT:
        assert answer.all(name) == [value]


@pytest.mark.parametrize("fields", [
    but("Upgrade", "WebSocket"), but("Upgrade", "WEBSOCKET"), but("Connection", "upgrade"),
    but("Connection", "keep-alive, Upgrade"), but("Connection", "keep-alive", "Upgrade"),
    but("Sec-WebSocket-Accept", f"  {websocket.ACCEPT} \t"),
    [("upgrade", "websocket"), ("CONNECTION", "Upgrade"), ("sec-websocket-accept", websocket.ACCEPT)],
    RIGHT + [("Sec-WebSocket-Protocol", "chat")], RIGHT + [("Sec-WebSocket-Extensions", "x-other")],
    RIGHT + [("Empty", "")]], ids=repr)  # fmt: skip
def test_right_101_however_spelt(server, origin, client, fields):
    assert_passes(server, origin, client, head(fields))


@pytest.mark.parametrize("start", ["HTTP/1.1 101 ", "HTTP/1.1 101 Web Socket Protocol Handshake"])
def test_any_reason_phrase(server, origin, client, start):
    assert_passes(server, origin, client, head(start=start))


@pytest.mark.parametrize("field", [("Content-Length", "0"), ("Content-Length", "100"), ("Content-Length", "5, 6"),
                                   ("Transfer-Encoding", "chunked"), ("Keep-Alive", "timeout=5")], ids=repr)  # fmt: skip
def test_framing_headers_are_dropped_from_a_101(server, origin, client, field):
    """RFC 9110 8.6: a 101 has no content, so nothing may say how long it is."""
    assert field[0] not in assert_passes(server, origin, client, head([*RIGHT, field]))


INTERIM = {"100": b"HTTP/1.1 100 Continue\r\n\r\n",
           "103": b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"}  # fmt: skip


@pytest.mark.parametrize("before", [["100"], ["103"], ["100", "103"], ["103", "103"], ["100"] * 9], ids=repr)
def test_interim_answers_before_the_101(server, origin, client, before):
    """They are handled; the client sees its 101, whatever httpd made of the others."""
    origin.answers(*[INTERIM[name] for name in before], head(), steps.websocket_echo, steps.close)
    talk = client(server.port).send(http.handshake())
    answer = talk.read_head()
    while answer.status in (100, 103):
        answer = talk.read_head()
    assert answer.status == 101
    assert "Link" not in answer
    talk.echoes()


@pytest.mark.parametrize("size", [1, 10, 8_000, 60_000, 200_000])
def test_bytes_in_the_same_segment_as_the_101(server, origin, client, size):
    greeting = bytes(range(256)) * (size // 256) + bytes(size % 256)
    origin.answers(head() + greeting, steps.websocket_echo, steps.close)
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    assert talk.read_exactly(size) == greeting
    talk.echoes()


def test_a_101_and_an_end_in_one_segment(server, origin, client):
    """A back end that greets and leaves: all of it arrives."""
    origin.answers(head() + b"bye", steps.close)
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    assert talk.read_to_end() == b"bye"


@pytest.mark.parametrize("split", [1, 8, 20, 34, len(head()) - 3, len(head()) - 1])
def test_a_101_in_two_segments(server, origin, client, split):
    whole = head()

    def pause(connection):
        # The first part is on its way; what follows is another segment.
        connection.silent_for(0.05)

    assert_passes(server, origin, client, whole[:split], pause, whole[split:])


WRONG = {
    "no Upgrade": (head(but("Upgrade")), "Upgrade"),
    "empty Upgrade": (head(but("Upgrade", "")), "Upgrade"),
    "another Upgrade": (head(but("Upgrade", "h2c")), "h2c"),
    "an Upgrade with more behind": (head(but("Upgrade", "websocketx")), "websocketx"),
    "two protocols": (head(but("Upgrade", "websocket, h2c")), "h2c"),
    "two Upgrade lines": (head(but("Upgrade", "websocket", "h2c")), "h2c"),
    "no Connection": (head(but("Connection")), "Connection"),
    "Connection without the token": (head(but("Connection", "keep-alive")), "keep-alive"),
    "Connection with a longer token": (head(but("Connection", "Upgrades")), "Upgrades"),
    "HTTP/1.0": (head(start="HTTP/1.0 101 Switching Protocols"), "HTTP/1.0"),
    "no accept": (head(but("Sec-WebSocket-Accept")), "Sec-WebSocket-Accept"),
    "empty accept": (head(but("Sec-WebSocket-Accept", "")), "Sec-WebSocket-Accept"),
    "wrong accept": (head(but("Sec-WebSocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")), "AAAAAAAA"),
    "accept in another case": (head(but("Sec-WebSocket-Accept", websocket.ACCEPT.lower())),
                               websocket.ACCEPT.lower().replace("+", r"\+")),
    "two accepts": (head(but("Sec-WebSocket-Accept", websocket.ACCEPT, websocket.ACCEPT)),
                    "Sec-WebSocket-Accept"),
    "subprotocol that is not offered": (head([*RIGHT, ("Sec-WebSocket-Protocol", "other")]), "other"),
    "subprotocol in another case": (head([*RIGHT, ("Sec-WebSocket-Protocol", "CHAT")]), "CHAT"),
    "two subprotocols": (head([*RIGHT, ("Sec-WebSocket-Protocol", "chat, superchat")]),
                         "Sec-WebSocket-Protocol"),
    "two subprotocol lines": (head([*RIGHT, ("Sec-WebSocket-Protocol", "chat"),
                                    ("Sec-WebSocket-Protocol", "superchat")]), "Sec-WebSocket-Protocol"),
    "extension that is not offered": (head([*RIGHT, ("Sec-WebSocket-Extensions", "x-unknown")]), "x-unknown"),
    "an offered and another extension": (
        head([*RIGHT, ("Sec-WebSocket-Extensions", "x-other, x-unknown")]), "x-unknown"),
    "folded header": (head([*RIGHT, ("X-Folded", "a\r\n b")]), ""),
    "bare LF": (head().replace(b"Connection: Upgrade\r\n", b"Connection: Upgrade\n"), ""),
    "all bare LF": (head().replace(b"\r\n", b"\n"), ""),
    "space before the colon": (head().replace(b"Upgrade:", b"Upgrade :"), ""),
    "line without a colon": (head().replace(b"\r\n\r\n", b"\r\nnothing\r\n\r\n"), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_101(server, origin, client, name):
    """502 and one error line that names what was expected and seen; the client's connection lives on."""
    answer, seen = WRONG[name]
    origin.answers(answer, steps.silence)
    server.expect_log(r"WSF\d{4}")
    talk = client(server.port)
    assert talk.ask(http.handshake(fields=OFFER)).status == 502
    lines = server.log.wait_for(r"WSF\d{4}.*" + seen)
    errors = [line for line in lines if b":error]" in line]
    assert len(errors) == 1, errors
    # The back end is let go, and what follows on this client's connection is served as ever.
    origin.wait_connections(1)[0].closed.wait(5)
    assert origin.connections[0].end == "eof"
    origin.answers(http.page(b"next\n"), steps.keep)
    assert client(server.port).ask(http.request()).body == b"next\n"


def test_too_many_interim_answers(server, origin, client):
    """Ten of them are too many, already for stock Apache."""
    origin.answers(INTERIM["103"] * 11 + head(), steps.silence)
    server.expect_log(r"WSF\d{4}|AH00898: Too many \(10\) interim responses")
    talk = client(server.port).send(http.handshake())
    answer = talk.read_head()
    while answer.status == 103:
        answer = talk.read_head()
    assert answer.status == 502


@pytest.mark.parametrize("without", [["Sec-WebSocket-Protocol"], ["Sec-WebSocket-Extensions"]])
def test_choice_where_nothing_was_offered(server, origin, client, without):
    """RFC 6455 4.1: a client that offered none must fail such a handshake."""
    choice = {"Sec-WebSocket-Protocol": "chat", "Sec-WebSocket-Extensions": "permessage-deflate"}
    origin.answers(head([*RIGHT, (without[0], choice[without[0]])]), steps.silence)
    server.expect_log(rf"WSF\d{{4}}.*{choice[without[0]]}")
    assert client(server.port).ask(http.handshake()).status == 502


def test_101_for_a_handshake_without_a_key(server, origin, client):
    """There is nothing that Sec-WebSocket-Accept could be right for."""
    origin.answers(head(), steps.silence)
    server.expect_log(r"WSF\d{4}.*Sec-WebSocket-Key")
    assert client(server.port).ask(http.handshake(without=["Sec-WebSocket-Key"])).status == 502


def test_101_that_nobody_asked_for(server, origin, client):
    """A plain request that is answered with a 101 is no tunnel."""
    origin.answers(head(), steps.silence)
    server.expect_log(r"AH00898|WSF\d{4}")
    assert client(server.port).ask(http.request()).status == 502


@pytest.mark.parametrize(("token", "good"), [("my/1", True), ("MY/1", True), ("websocket", False), ("my/2", False)])
def test_101_for_another_protocol_of_wsforwardprotocols(server, origin, client, token, good):
    """Opaque tokens: the token and Connection are checked, nothing of RFC 6455."""
    origin.answers(head([("Upgrade", token), ("Connection", "Upgrade")]), steps.echo, steps.close)
    talk = client(server.port)
    if not good:
        server.expect_log(rf"WSF\d{{4}}.*{token}")
    answer = talk.ask(http.request("/opaque", fields=[("Connection", "Upgrade"), ("Upgrade", "my/1")]))
    assert answer.status == (101 if good else 502)
    if good:
        talk.send(b"\0raw\xff")
        assert talk.read_exactly(5) == b"\0raw\xff"
