"""A message of TLS's own that comes in part and is broken off: mod_ssl gives the session up at once, in the middle
of the connection, and nothing may use it any more that has no reference of its own."""

import socket
import threading

import pytest

from harness import http, preload, relayed, relaysite, steps, wait
from harness.partial import PART, partial, secrets  # noqa: F401
from harness.records import HANDSHAKE, KEY_UPDATE, Records

#: WSForwardMaxLifetime of what stays in its thread, in seconds.
LIMIT = 1


def closes(raw):
    raw.sock.shutdown(socket.SHUT_WR)


def resets(raw):
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.sock.close()


def sends_garbage(raw):
    raw.sock.sendall(b"\x17\3\3\0\x20" + bytes(32))


def goes_on_wrong(raw):
    """With a value that a KeyUpdate has not."""
    raw.send(b"\x07", HANDSHAKE)


def goes_on_in_part(raw):
    """With some bytes of the record that has the rest; no more follow."""
    raw.sock.sendall(raw.record(KEY_UPDATE[PART:], HANDSHAKE)[:7])
    raw.sock.shutdown(socket.SHUT_WR)


WAYS = [closes, resets, sends_garbage, goes_on_wrong, goes_on_in_part]


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module", params=["event", "prefork"])
def relay(request, shared_httpd, origins, partial, scratch):
    made = shared_httpd(mpm=request.param)
    with preload.loaded(preload.build("sessions", scratch)):
        return relaysite.start(made, origins, f"""ProxyPass "/partial" "{partial.url("https")}"
<Location "/stays">
    WSForwardRelay Off
    WSForwardMaxLifetime {LIMIT}
</Location>""")


@pytest.fixture
def server(relay):
    """No process of it has died in the end."""
    children = set(relay.children)
    yield relay
    relayed.wait_figure(relay, "Tunnels", 0)
    assert children <= set(relay.children), relay.log.text()


@pytest.fixture
def records(server, client, certificate, tmp_path):
    """A TLS 1.3 client and the maker of its records."""
    context = certificate.client_context("tls1.3")
    context.keylog_filename = str(tmp_path / "keys")
    talk = client(server.ports["tls"], context)
    return talk, Records(talk.sock, tmp_path / "keys")


def busy(server):
    return int(server.status()["BusyWorkers"]) - 1


def waits(server):
    wait.until(lambda: busy(server) == 1, "the tunnel waits in its thread")


def is_back(server):
    wait.until(lambda: busy(server) == 0, "its worker is back")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("to", ["/", "/tls/"])
def test_by_a_client(server, origins, records, how, to):
    talk, raw = records
    raw.sock.sendall(raw.record(http.handshake(to)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
    assert talk.read_head().status == 101
    waits(server)
    how(raw)
    is_back(server)


@pytest.mark.parametrize("how", WAYS)
def test_by_a_client_whose_tunnel_stays_in_its_thread(server, origins, records, how):
    talk, raw = records
    raw.sock.sendall(raw.record(http.handshake("/stays")))
    assert talk.read_head().status == 101
    raw.sock.sendall(raw.record(KEY_UPDATE[:PART], HANDSHAKE))
    waits(server)
    how(raw)
    is_back(server)


def test_by_a_client_whose_tunnel_is_ended(server, origins, records):
    """It is told so, and its session is none that could tell it."""
    talk, raw = records
    raw.sock.sendall(raw.record(http.handshake("/stays")))
    assert talk.read_head().status == 101
    raw.sock.sendall(raw.record(KEY_UPDATE[:PART], HANDSHAKE))
    server.log.wait_for("lifetime")
    closes(raw)
    is_back(server)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("kind", ["plain", "tls1.3"])
def test_by_a_back_end(server, partial, secrets, client, kind, how):
    go = threading.Event()

    def part(connection):
        raw, parts = Records(connection.sock, secrets, "SERVER_TRAFFIC_SECRET_0"), []
        connection.send = parts.append
        steps.switch()(connection)
        raw.sock.sendall(raw.record(b"".join(parts)) + raw.record(KEY_UPDATE[:PART], HANDSHAKE))
        steps.wait_for(go)(connection)
        how(raw)

    partial.answers(part)
    talk = relaysite.dial(server, client, kind)
    assert talk.ask(http.handshake("/partial/")).status == 101
    waits(server)
    go.set()
    is_back(server)
    talk.close()
