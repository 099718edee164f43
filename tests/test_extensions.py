"""WSForwardExtensions: what the back end sees of a client's offer, and what it may answer to that."""

import pytest

from harness import http, relaysite, steps
from harness.h2client import Http2Client

pytestmark = pytest.mark.carriers("thread", "relay", "http2")

NAME = "Sec-WebSocket-Extensions"
OFFER = "permessage-deflate; client_max_window_bits, X-A; b=1"
SITES = """<Location "/none">
    WSForwardExtensions none
</Location>
<Location "/none/any">
    WSForwardExtensions any
</Location>
<Location "/x-a">
    WSForwardExtensions x-a x-b
</Location>
<Location "/x-a/lenient">
    WSForwardCheck lenient
</Location>
<Location "/x-a/off">
    WSForwardCheck off
</Location>
<Location "/if">
    <If "%{HTTP:X-Plain} == 'yes'">
        WSForwardExtensions none
    </If>
</Location>
"""


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def server(carrier, shared_httpd, origins):
    return carrier.start(shared_httpd, origins, SITES)


@pytest.fixture
def ask(carrier, server, origins, client, certificate):
    """A handshake with these offers, which the back end answers with this one: the status, what came back,
    and what the back end saw."""
    opened = []

    def ask(path, *offers, answer=None, fields=()):
        origins["tcp"].answers(steps.switch([(NAME, answer)] if answer else ()), steps.websocket_echo, steps.close)
        fields = [*((NAME, offer) for offer in offers), *fields]
        if carrier.name == "http2":
            talk = Http2Client(server.ports["tls"], certificate.client_context("tls1.3", ["h2"]))
            opened.append(talk.sock)
            stream = talk.websocket(path, [(name.lower(), value) for name, value in fields])
            status, got = stream.status, stream.get(NAME.lower())
            status = 101 if status == 200 else status
        else:
            talk = client(server.ports["plain"])
            got = talk.ask(http.handshake(path, fields=fields))
            status, got = got.status, got.get(NAME)
        return status, got, origins["tcp"].requests[-1].all(NAME)

    yield ask
    for sock in opened:
        sock.close()


@pytest.mark.parametrize(("path", "offers", "seen"), [
    ("/", [OFFER], [OFFER]),
    ("/none", [OFFER], []),
    ("/none", [], []),
    ("/none/any", [OFFER], [OFFER]),
    ("/x-a", [OFFER], ["X-A; b=1"]),
    ("/x-a", ["permessage-deflate"], []),
    ("/x-a", ["x-b", "permessage-deflate", "x-a"], ["x-b, x-a"]),
    ("/x-a", ['x-c; y="1, x-a"'], []),
    ("/x-a", [",;,"], []),
    ("/if", [OFFER], [OFFER]),
])  # fmt: skip
def test_back_end_sees_what_is_allowed(ask, path, offers, seen):
    status, _, got = ask(path, *offers)
    assert (status, got) == (101, seen)


def test_if_decides_by_the_request(ask):
    status, _, seen = ask("/if", OFFER, fields=[("X-Plain", "yes")])
    assert (status, seen) == (101, [])


@pytest.mark.parametrize(("path", "answer"), [("/", "permessage-deflate"), ("/x-a", "X-A; b=1"), ("/x-a/off", "x-a")])
def test_answer_to_what_was_sent_passes(ask, path, answer):
    status, got, _ = ask(path, OFFER, answer=answer)
    assert (status, got) == (101, answer)


@pytest.mark.parametrize("path", ["/none", "/x-a", "/x-a/lenient", "/x-a/off"])
def test_answer_to_what_was_not_sent_is_refused(server, ask, path):
    """Though the client offered it, and whatever WSForwardCheck says."""
    server.expect_log('WSF0103.*wrong 101: Sec-WebSocket-Extensions has ."permessage-deflate.?"|AH00898|WSF0103')
    assert ask(path, OFFER, answer="permessage-deflate")[0] == 502


@pytest.mark.carriers("thread", "relay")
def test_other_protocols_have_no_extensions(httpd, backend, client, carrier):
    """Their header lines are left alone."""
    origin, server = backend(), carrier.httpd(httpd)
    port = server.vhost(f"""WSForward On
{carrier.directives}
WSForwardProtocols my/1
WSForwardExtensions none
ProxyPass "/" "{origin.url("http")}" upgrade=my/1""")
    server.start()
    origin.answers(steps.switch([(NAME, "x")], without=["Sec-WebSocket-Accept"]), steps.echo, steps.close)
    answer = client(port).ask(http.handshake(upgrade="my/1", fields=[(NAME, OFFER)]))
    assert (answer.status, answer.get(NAME)) == (101, "x")
    assert origin.requests[-1].all(NAME) == [OFFER]
