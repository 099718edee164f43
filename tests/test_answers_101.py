"""Issue section 5: a 101 that is right, and every way for it to be wrong (RFC 6455 4.1)."""

import re

import pytest

from harness import config, http, steps, websocket

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


@pytest.fixture(scope="module", params=config.MPM)
def server(request, shared_httpd, origin):
    made = shared_httpd(mpm=request.param)
    made.port = made.vhost(f"""WSForward On
ProxyPass "/opaque" "{origin.url("http", "/opaque")}" upgrade=my/1
ProxyPass "/" "{origin.url("http")}"
<Location "/opaque">
    WSForwardProtocols my/1
</Location>
<Location "/lenient">
    WSForwardCheck lenient
</Location>
<Location "/lenient/strict">
    WSForwardCheck strict
</Location>
<Location "/lenient/strict/relayed">
    WSForwardRelay On
</Location>
<Location "/off">
    WSForwardCheck off
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


@pytest.mark.parametrize("before", [["100"], ["103"], ["100", "103"], ["103", "103"], ["100"] * 9, ["103"] * 9], ids=repr)
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
    assert_passes(server, origin, client, whole[:split], steps.until_read, whole[split:])


def quoted(text):
    return re.escape(f'"{text}"')


NOT_UPGRADE = 'Upgrade is {}, expected "websocket"'
NOT_CONNECTION = 'Connection is {}, expected it to name "upgrade"'
NOT_ACCEPT = f"Sec-WebSocket-Accept is {{}}, expected {quoted(websocket.ACCEPT)}"
NOT_PROTOCOL = 'Sec-WebSocket-Protocol is {}, offered were "chat, superchat"'
NOT_EXTENSION = 'Sec-WebSocket-Extensions has {}, offered were "permessage-deflate; client_max_window_bits, x-other"'
BARE_LF = "a line ends with LF alone, expected CRLF"
MALFORMED = r"its header fields are malformed \(.+\)"
NO_ACCEPT = "AAAAAAAAAAAAAAAAAAAAAAAAAAA="

#: What the back end sends, and what the log says was seen and expected.
WRONG = {
    "no Upgrade": (head(but("Upgrade")), NOT_UPGRADE.format("missing")),
    "empty Upgrade": (head(but("Upgrade", "")), NOT_UPGRADE.format(quoted(""))),
    "another Upgrade": (head(but("Upgrade", "h2c")), NOT_UPGRADE.format(quoted("h2c"))),
    "an Upgrade with more behind": (head(but("Upgrade", "websocketx")), NOT_UPGRADE.format(quoted("websocketx"))),
    "two protocols": (head(but("Upgrade", "websocket, h2c")), NOT_UPGRADE.format(quoted("websocket, h2c"))),
    "two Upgrade lines": (head(but("Upgrade", "websocket", "h2c")), NOT_UPGRADE.format(quoted("websocket,h2c"))),
    "no Connection": (head(but("Connection")), NOT_CONNECTION.format("missing")),
    "Connection without the token": (head(but("Connection", "keep-alive")), NOT_CONNECTION.format(quoted("keep-alive"))),
    "Connection with a longer token": (head(but("Connection", "Upgrades")), NOT_CONNECTION.format(quoted("Upgrades"))),
    "HTTP/1.0": (head(start="HTTP/1.0 101 Switching Protocols"), r"its version is HTTP/1\.0, expected HTTP/1\.1"),
    "no accept": (head(but("Sec-WebSocket-Accept")), NOT_ACCEPT.format("missing")),
    "empty accept": (head(but("Sec-WebSocket-Accept", "")), NOT_ACCEPT.format(quoted(""))),
    "wrong accept": (head(but("Sec-WebSocket-Accept", NO_ACCEPT)), NOT_ACCEPT.format(quoted(NO_ACCEPT))),
    "accept in another case": (head(but("Sec-WebSocket-Accept", websocket.ACCEPT.lower())),
                               NOT_ACCEPT.format(quoted(websocket.ACCEPT.lower()))),
    "two accepts": (head(but("Sec-WebSocket-Accept", websocket.ACCEPT, websocket.ACCEPT)),
                    NOT_ACCEPT.format(quoted(f"{websocket.ACCEPT},{websocket.ACCEPT}"))),
    "subprotocol that is not offered": (head([*RIGHT, ("Sec-WebSocket-Protocol", "other")]),
                                        NOT_PROTOCOL.format(quoted("other"))),
    "subprotocol in another case": (head([*RIGHT, ("Sec-WebSocket-Protocol", "CHAT")]),
                                    NOT_PROTOCOL.format(quoted("CHAT"))),
    "two subprotocols": (head([*RIGHT, ("Sec-WebSocket-Protocol", "chat, superchat")]),
                         NOT_PROTOCOL.format(quoted("chat, superchat"))),
    "two subprotocol lines": (head([*RIGHT, ("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "superchat")]),
                              NOT_PROTOCOL.format(quoted("chat,superchat"))),
    "extension that is not offered": (head([*RIGHT, ("Sec-WebSocket-Extensions", "x-unknown")]),
                                      NOT_EXTENSION.format(quoted("x-unknown"))),
    "an offered and another extension": (head([*RIGHT, ("Sec-WebSocket-Extensions", "x-other, x-unknown")]),
                                         NOT_EXTENSION.format(quoted("x-unknown"))),
    "folded header": (head([*RIGHT, ("X-Folded", "a\r\n b")]), MALFORMED),
    "bare LF": (head().replace(b"Connection: Upgrade\r\n", b"Connection: Upgrade\n"), BARE_LF),
    "all bare LF": (head().replace(b"\r\n", b"\n"), BARE_LF),
    "space before the colon": (head().replace(b"Upgrade:", b"Upgrade :"), MALFORMED),
    "line without a colon": (head().replace(b"\r\n\r\n", b"\r\nnothing\r\n\r\n"), MALFORMED),
}  # fmt: skip


def refused(server, origin, client, request, answer, why):
    """502 and an error line that names what was expected and seen, which mod_proxy's quotes; the back end is
    let go, and the client's connection, which had a page before, gets one behind."""
    wrong = rf"WSF0103: wrong 101: {why}"
    server.expect_log(rf"proxy:error\] .*AH00898: .*{wrong}")
    talk = client(server.port)
    page = (200, b"plain\n")
    plain = talk.ask(http.request())
    assert (plain.status, plain.body) == page
    origin.answers(answer, steps.silence)
    refusal = talk.ask(request)
    assert refusal.status == 502
    assert b"WSF0103" in refusal.body
    # What the back end said is for the log alone.
    assert b"Sec-WebSocket" not in refusal.body + refusal.head and "Upgrade" not in refusal
    lines = server.log.matching(r":error\]")
    assert len(lines) == 2 and all(re.search(wrong.encode(), line) for line in lines), lines
    origin.connections[-1].wait_closed()
    assert origin.connections[-1].end == "eof"
    origin.answers(*steps.WEBSOCKET_OR_PAGE)
    plain = talk.ask(http.request())
    assert (plain.status, plain.body) == page


@pytest.mark.parametrize("name", WRONG)
def test_wrong_101(server, origin, client, name):
    answer, why = WRONG[name]
    cure = r" \(WSForwardCheck lenient passes it\)" if is_forgiven(why) else ""
    refused(server, origin, client, http.handshake(fields=OFFER), answer, f"{why}{cure};? ?(AH00898|returned by)")


def is_forgiven(why):
    """Whether WSForwardCheck is about it."""
    return why.startswith("Sec-WebSocket-")


def passes(server, origin, client, request, answer):
    """The 101 reaches the client as it is, and the bytes behind it."""
    origin.answers(answer, steps.websocket_echo, steps.close)
    talk = client(server.port)
    got = talk.ask(request)
    assert got.status == 101
    sent = http.Message(answer)
    for name, _ in [*got.fields, *sent.fields]:
        assert got.all(name) == sent.all(name)
    talk.echoes()


#: What WSForwardCheck is about: the client's request, the answer, why strict refuses it.
FORGIVEN = {name: (OFFER, [], *WRONG[name]) for name in WRONG if is_forgiven(WRONG[name][1])} | {
    "no key and no accept": ([], ["Sec-WebSocket-Key", "Sec-WebSocket-Version"], head(but("Sec-WebSocket-Accept")),
                             "it answers a request without Sec-WebSocket-Key"),
    "no key": ([], ["Sec-WebSocket-Key"], head(), "it answers a request without Sec-WebSocket-Key"),
    "a subprotocol where none was offered": ([], [], head([*RIGHT, ("Sec-WebSocket-Protocol", "chat")]),
                                             'Sec-WebSocket-Protocol is "chat", offered were ""'),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGIVEN)
def test_lenient_passes_and_says_what_strict_refuses(server, origin, client, name):
    """WSForwardCheck lenient: one line at info for each such 101."""
    fields, without, answer, why = FORGIVEN[name]
    # The log of the tests shows debug, so info too.
    passes(server, origin, client, http.handshake("/lenient", fields=fields, without=without), answer)
    [line] = server.log.matching("WSF0111: ")
    assert re.search(rf"\[wsforward:info\] .* WSF0111: WSForwardCheck lenient passes a wrong 101: {why}$".encode(), line), line


@pytest.mark.parametrize("name", FORGIVEN)
def test_off_does_not_look(server, origin, client, name):
    fields, without, answer, _ = FORGIVEN[name]
    passes(server, origin, client, http.handshake("/off", fields=fields, without=without), answer)
    assert not server.log.matching("WSF0111|WSF0103")


@pytest.mark.parametrize("path", ["/lenient/strict", "/lenient/strict/relayed"])
@pytest.mark.parametrize("name", ["no accept", "no key and no accept"])
def test_strict_within_lenient(server, origin, client, name, path):
    """It merges as the others do: the inner one holds, and one that says nothing leaves it to the outer."""
    fields, without, answer, why = FORGIVEN[name]
    refused(server, origin, client, http.handshake(path, fields=fields, without=without), answer, why)


@pytest.mark.parametrize("path", ["/lenient", "/off"])
@pytest.mark.parametrize("name", [name for name, (_, why) in WRONG.items() if not is_forgiven(why)])
def test_what_nobody_forgives(server, origin, client, name, path):
    """Token, Connection and the lines of the head say whether there is a tunnel at all."""
    answer, why = WRONG[name]
    refused(server, origin, client, http.handshake(path, fields=OFFER), answer, f"{why};? ?(AH00898|returned by)")


@pytest.mark.parametrize("offered", [[], [("Sec-WebSocket-Protocol", "")], [("Sec-WebSocket-Protocol", "chat")]], ids=repr)
@pytest.mark.parametrize("chosen", ["", "  ", ","])
def test_empty_subprotocol_is_none(server, origin, client, offered, chosen):
    """Back ends that copy the offer into the answer send it where nothing was offered."""
    answer = head([*RIGHT, ("Sec-WebSocket-Protocol", chosen)])
    passes(server, origin, client, http.handshake(fields=offered), answer)
    assert not server.log.matching("WSF0111|WSF0103")


def test_empty_offer_and_no_choice(server, origin, client):
    passes(server, origin, client, http.handshake(fields=[("Sec-WebSocket-Protocol", "")]), head())


def test_too_many_interim_answers(server, origin, client):
    """The tenth is one too many, already for stock httpd."""
    origin.answers(INTERIM["103"] * 10 + head(), steps.silence)
    server.expect_log(r"proxy:error\].*AH00898: Too many \(10\) interim responses")
    talk = client(server.port).send(http.handshake())
    assert [talk.read_head().status for _ in range(11)] == [103] * 10 + [502]
    origin.connections[0].wait_closed()


CHOICES = {"Sec-WebSocket-Protocol": ("chat", f"Sec-WebSocket-Protocol is {quoted('chat')}, offered were {quoted('')}"),
           "Sec-WebSocket-Extensions": ("permessage-deflate", f"Sec-WebSocket-Extensions has {quoted('permessage-deflate')}, "
                                                              f"offered were {quoted('')}")}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_choice_where_nothing_was_offered(server, origin, client, name):
    """RFC 6455 4.1: a client that offered none must fail such a handshake."""
    choice, why = CHOICES[name]
    refused(server, origin, client, http.handshake(), head([*RIGHT, (name, choice)]), why)


def test_101_for_a_handshake_without_a_key(server, origin, client):
    """There is nothing that Sec-WebSocket-Accept could be right for."""
    request = http.handshake(without=["Sec-WebSocket-Key"])
    refused(server, origin, client, request, head(), "it answers a request without Sec-WebSocket-Key")


def test_101_that_nobody_asked_for(server, origin, client):
    """A plain request that is answered with a 101 is no tunnel. It is mod_proxy_http that refuses it."""
    origin.answers(head(), steps.silence)
    server.expect_log(r"proxy:error\].*AH00898: ")
    assert client(server.port).ask(http.request()).status == 502
    [line] = server.log.matching(r":error\]")
    assert b"WSF" not in line


@pytest.mark.parametrize("token", ["my/1", "MY/1"])
def test_101_for_another_protocol_of_wsforwardprotocols(server, origin, client, token):
    """Opaque tokens: the token and Connection are checked, nothing of RFC 6455."""
    origin.answers(head([("Upgrade", token), ("Connection", "Upgrade")]), steps.echo, steps.close)
    talk = client(server.port)
    assert talk.ask(http.request("/opaque", fields=[("Connection", "Upgrade"), ("Upgrade", "my/1")])).status == 101
    talk.send(b"\0raw\xff")
    assert talk.read_exactly(5) == b"\0raw\xff"


@pytest.mark.parametrize("token", ["websocket", "my/2"])
def test_101_for_another_protocol_than_was_asked(server, origin, client, token):
    request = http.request("/opaque", fields=[("Connection", "Upgrade"), ("Upgrade", "my/1")])
    refused(server, origin, client, request, head([("Upgrade", token), ("Connection", "Upgrade")]),
            f"Upgrade is {quoted(token)}, expected {quoted('my/1')}")  # fmt: skip
