"""What the scripts of tlsfuzzer try with an open session, tried with the session of a relayed tunnel.

tlsfuzzer (https://github.com/tlsfuzzer/tlsfuzzer) is what projects of TLS test themselves with. Its scripts speak to a server
of HTTP, and of all of the handshake. What they do behind the handshake is done here to a tunnel: record layer, KeyUpdate,
alerts, renegotiation. The cases are in harness.tlscases, and run with WSForwardTLS openssl and native. Both have to come to the
same, but where OpenSSL does otherwise and an RFC has it as the native session does: the case says where.
"""

import re

import pytest

from harness import relayed, relaysite, tlsrecords, wait
from harness.tlscases import BY_CLIENTS, BY_SERVERS
from harness.tlsoutcomes import Fails, Goes, GoesAnswering, GoesAnsweringOften
from harness.tlsrecords import ALERT, CHANGE_CIPHER_SPEC, DATA, FATAL, HANDSHAKE
from harness.tlssends import FRAME, PAYLOAD, UPDATE
from harness.websocket import BINARY, TEXT, Frame

MODES = ["openssl", "native"]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def origin(certificate):
    """A back end of tlslite-ng's."""
    made = tlsrecords.RecordOrigin(certificate)
    yield made
    made.close()


@pytest.fixture(scope="module", params=MODES)
def relay(request, shared_httpd, origins, origin):
    made = shared_httpd()
    made.directives(f"WSForwardTLS {request.param}")
    made.mode = request.param
    return relaysite.start(made, origins, f'ProxyPass "/records" "{origin.url}"')


@pytest.fixture
def server(relay):
    yield relay
    relayed.wait_figure(relay, "Tunnels", 0)


class Tunnel:
    """One whose session with `talk` is tried. What that sends is read at `far`, which is itself if the back end echoes."""

    def __init__(self, server, talk, far, by):
        self.server, self.talk, self.far, self.by = server, talk, far, by

    def carries(self, frame):
        """Reads this frame, and has it go the other way."""
        assert self.far.read_frame() == frame
        if self.far is not self.talk:
            self.far.send_frame(frame)
            assert self.talk.read_frame() == frame

    def goes_on(self, case, wanted, sent):
        """Whether it does, with the right records before the next data."""
        talk = self.talk
        if getattr(wanted, "at_once", False):
            talk.control += [talk.receive() for _ in wanted.control]
        talk.send(case.behind)
        if not sent:
            talk.send(FRAME)
        self.carries(Frame(BINARY, sent) if isinstance(sent, bytes) else Frame(TEXT, PAYLOAD))
        if isinstance(wanted, GoesAnsweringOften):
            assert set(talk.control) == {(HANDSHAKE, UPDATE)} and len(talk.control) <= wanted.most
        elif isinstance(wanted, GoesAnswering):
            assert [(kind, text[0]) for kind, text in talk.control] == [(HANDSHAKE, kind) for kind in wanted.kinds]
        else:
            assert tuple(talk.control) == wanted.control
        # With the keys that there are now.
        last = Frame(BINARY, bytes(2000))
        talk.send_frame(last)
        self.carries(last)

    def ends(self, wanted):
        """Whether it does as it has to, by a fatal alert or without."""
        came = self.talk.to_the_end()
        if isinstance(wanted, Fails):
            allowed = wanted.alert if isinstance(wanted.alert, tuple) else (wanted.alert,)
            assert came in [[(ALERT, bytes([FATAL, alert]))] for alert in allowed]
        else:
            assert came == [(ALERT, bytes(pair)) for pair in wanted.alerts]
        [end] = relayed.ends(self.server)
        why = re.escape(wanted.why) if self.server.mode == "native" else ".+"
        assert end.by == self.by and re.fullmatch("closed" if wanted.why == "closed" else f"tls: {why}", end.why), end


@pytest.fixture
def by_client(server):
    """Makes tunnels of clients whose records are the test's."""
    made = []

    def make(case):
        made.append(tlsrecords.connect(server.ports["tls"], case.version, case.cipher))
        return Tunnel(server, relayed.opened(server, made[0]), made[0], "client")
    yield make
    for talk in made:
        talk.close()


@pytest.fixture
def by_server(server, origin, client):
    """The same of back ends."""
    made = []

    def make(case):
        serving = origin.serve(case.version, case.cipher)
        far = relayed.opened(server, client(server.ports["plain"]), "/records")
        made.append(serving.result())
        return Tunnel(server, made[0], far, "back end")
    yield make
    for talk in made:
        talk.close()


def settled(figures):
    return figures if figures["HandedOver"] == figures["Tls-native"] + figures["Tls-off"] else None


def check(server, other, make, case):
    """Runs a case beside another tunnel of the same child."""
    # A tunnel is counted as handed over a moment before its session is.
    before = wait.until(lambda: settled(relayed.figures(server)), "the sessions of all tunnels are counted")
    tunnel = make(case)
    [child] = server.children
    sent = case.send(tunnel.talk)
    wanted = case.openssl or case.wanted if server.mode == "openssl" else case.wanted
    ended = {}
    if isinstance(wanted, Goes | GoesAnswering | GoesAnsweringOften):
        tunnel.goes_on(case, wanted, sent)
    else:
        tunnel.ends(wanted)
        ended = {"Ended-closed" if wanted.why == "closed" else "Ended-tls": 1}
    # TLS 1.3 protects the type, too (RFC 8446 5.2), of the last records at least.
    outer = {kind for kind, *_ in tunnel.talk.headers()[-1 - len(tunnel.talk.control) :]}
    assert case.version == "tls1.2" or outer == {DATA}, outer
    other.echoes(b"goes on")
    assert server.children == [child]
    now = relayed.figures(server)
    grown = {name: now[name] - before[name] for name in ("HandedOver", "Tls-native", "Tls-off", "Ended-closed", "Ended-tls")}
    kept = "Tls-native" if server.mode == "native" else "Tls-off"
    assert grown == dict.fromkeys(grown, 0) | {"HandedOver": 1, kept: 1} | ended


@pytest.fixture
def other(server, client, certificate):
    return relayed.opened(server, client(server.ports["tls"], certificate.client_context("tls1.3")))


@pytest.mark.parametrize("case", BY_CLIENTS, ids=str)
def test_by_a_client(server, other, by_client, case):
    check(server, other, by_client, case)


@pytest.mark.parametrize("case", BY_SERVERS, ids=str)
def test_by_a_back_end(server, other, by_server, case):
    check(server, other, by_server, case)


def test_no_explicit_nonce_twice(server, by_client):
    """test-aes-gcm-nonces: of what OpenSSL sent before the hand-over and what is sent behind it (RFC 5288 3)."""
    case = next(case for case in BY_CLIENTS if case.version == "tls1.2" and case.cipher == "AES128-GCM")
    talk = by_client(case).talk
    for _ in range(8):
        talk.echoes()
    found = talk.headers()
    protected = found[[kind for kind, *_ in found].index(CHANGE_CIPHER_SPEC) + 1 :]
    nonces = [int.from_bytes(body[:8], "big") for *_, body in protected]
    # Finished, the 101, and the echoes.
    assert len(nonces) == 10
    assert nonces == [(nonces[0] + number) % (1 << 64) for number in range(10)]


def test_differences_have_their_reason():
    assert all(bool(case.openssl) == bool(case.because) for case in [*BY_CLIENTS, *BY_SERVERS])


def test_no_name_stands_for_two_cases():
    for cases in BY_CLIENTS, BY_SERVERS:
        assert len({str(case) for case in cases}) == len(cases)
