"""Rules for open tunnels as one: each may stand in an `<If>` and is merged with those of outer sections, and each says
why it ended a tunnel in the error log, the access log and the metrics."""

import contextlib
import time

import pytest

from harness import http, relaysite, statuspage, steps, wait, websocket
from harness.carriers import DEFAULT
from harness.websocket import BINARY, Frame

pytestmark = pytest.mark.carriers(*DEFAULT, mpms=["event"])

#: A message that is longer than the outer sections allow, and one that is longer than the `<If>` does.
OUTER, INNER = 1000, 10
UNMASKED = b"\x81\x01x"
#: By the query string that has it: what stands in the `<If>`, what a client does about it, the code that it gets, and
#: who ended the tunnel and why.
ENDS = {
    "ping": ("WSForwardPing 1s 1s", b"", 1001, "client|back end", "ping-timeout"),
    "lifetime": ("WSForwardMaxLifetime 1s", b"", 1001, "server", "lifetime"),
    "expires": ("SetEnv WSFORWARD_EXPIRES +1", b"", 1008, "server", "expired"),
    "message": (f"WSForwardMaxMessage {INNER}", Frame(BINARY, bytes(INNER + 1)).encode(mask=True), 1009, "client", "message-too-big"),
    "strict": ("WSForwardStrict On", UNMASKED, 1002, "client", "protocol-error"),
}  # fmt: skip
#: Those that end nothing.
OTHERS = {
    "bandwidth": "WSForwardBandwidth 4000/s",
    "rate": "WSForwardMessageRate 4/s",
    "origin": "WSForwardOrigin same",
    "extensions": "WSForwardExtensions none",
    "check": "WSForwardCheck lenient",
    "idle": "WSForwardIdleTimeout 1s",
}
SECTIONS = "\n".join(
    f"""<If "%{{QUERY_STRING}} == '{query}'">\n{text}\n</If>""" for query, text in
    ({query: text for query, (text, *_) in ENDS.items()} | OTHERS).items())  # fmt: skip


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    made = carrier.httpd(shared_httpd)
    made.directives(f'CustomLog "{made.directory}/rules.log" "%{{id}}^WS %{{by}}^WS %{{reason}}^WS"')
    return relaysite.start(made, origins, f"""WSForwardMaxMessage {OUTER}
<Location "/strict">
    WSForwardStrict On
</Location>
{statuspage.SECTION.format("")}
ProxyPass "/status" "!"
{SECTIONS}""", carrier.directives)


@pytest.mark.parametrize("rule", [rule for rule in ENDS if rule != "ping"])
def test_an_end_is_told_everywhere(server, carrier, client, tunnel, rule):
    is_told_everywhere(server, carrier, client, tunnel, rule)


@pytest.mark.carriers("relay", mpms=["event"])
def test_an_end_for_want_of_an_answer_is_told_everywhere(server, carrier, client, tunnel):
    """There are no Pings in threads."""
    is_told_everywhere(server, carrier, client, tunnel, "ping")


def is_told_everywhere(server, carrier, client, tunnel, rule):
    _, sent, code, by, why = ENDS[rule]
    page = statuspage.Page(server, client, server.ports["plain"])
    before = page.metric("tunnels_closed_total", reason=why)
    # A back end that echoes answers Pings, and a Close.
    talk = tunnel(None, "tcp", steps.drain if rule == "ping" else steps.websocket_echo, steps.close, path=f"/?{rule}")
    talk.send(sent)
    frame = talk.read_frame()
    while frame.opcode == websocket.PING:
        frame = talk.read_frame()
    assert frame == websocket.close_frame(code)
    with contextlib.suppress(OSError):
        talk.send_frame(frame)
    talk.read_to_end()
    talk.close()
    end = carrier.ended(server, talk, by, why)
    page.wait_metric(before + 1, "tunnels_closed_total", reason=why)
    [line] = wait.until(lambda: [line for line in (server.directory / "rules.log").read_text().splitlines()
                                 if line.startswith(f"{end.id} ")], "the access log's line")  # fmt: skip
    assert line.split() == [end.id, end.by.replace("back end", "backend"), why]


@pytest.mark.carriers("relay", mpms=["event"])
@pytest.mark.parametrize("rule", ["bandwidth", "rate"])
def test_rates_may_stand_in_an_if(server, carrier, tunnel, rule):
    """Four messages, of 1000 bytes with their headers, come at once, and one more in a quarter of a second."""
    talk, message = tunnel(path=f"/?{rule}"), Frame(BINARY, bytes(992))
    begin = time.monotonic()
    talk.send(message.encode(mask=True) * 5)
    for _ in range(5):
        assert talk.read_frame() == message
    assert time.monotonic() - begin >= 0.2
    talk.reset()
    carrier.ended(server, talk, "client", "reset")


def test_idle_timeout_may_stand_in_an_if(server, carrier, tunnel):
    talk = tunnel(None, "tcp", steps.drain, steps.close, path="/?idle")
    talk.read_to_end()
    talk.close()
    carrier.ended(server, talk, "server", "idle-timeout")


@pytest.mark.parametrize(("rule", "field", "answer", "status"), [
    ("origin", ("Origin", "https://evil.example"), (), 403), ("other", ("Origin", "https://evil.example"), (), 101),
    ("extensions", ("Sec-WebSocket-Extensions", "x"), [("Sec-WebSocket-Extensions", "x")], 502),
    ("other", ("Sec-WebSocket-Extensions", "x"), [("Sec-WebSocket-Extensions", "x")], 101),
    ("check", ("X", "x"), [("Sec-WebSocket-Protocol", "x")], 101), ("other", ("X", "x"), [("Sec-WebSocket-Protocol", "x")], 502),
])  # fmt: skip
def test_rules_of_the_handshake_may_stand_in_an_if(server, origins, client, rule, field, answer, status):
    server.expect_log("WSF0140|WSF0103|AH00898|WSF0139|WSF0143", certain=False)
    origins["tcp"].answers(steps.switch(answer), steps.websocket_echo, steps.close)
    asked = client(server.ports["plain"]).ask(http.handshake(f"/?{rule}", fields=[field]))
    assert asked.status == status


@pytest.mark.parametrize("violation", ["lifetime", "strict", "message"])
def test_rules_of_all_sections_hold(server, carrier, tunnel, violation):
    """The limit of the virtual host, the framing of the `<Location>`, and the lifetime of the `<If>`."""
    sent, code, why, by = {
        "message": (Frame(BINARY, bytes(OUTER + 1)).encode(mask=True), 1009, "message-too-big", "client"),
        "strict": (UNMASKED, 1002, "protocol-error", "client"),
        "lifetime": (b"", 1001, "lifetime", "server"),
    }[violation]
    talk = tunnel(path="/strict/?lifetime")
    talk.echoes(bytes(OUTER))
    talk.send(sent)
    assert talk.read_frame() == websocket.close_frame(code)
    talk.send_frame(websocket.close_frame(code))
    talk.end()
    talk.close()
    carrier.ended(server, talk, by, why)
