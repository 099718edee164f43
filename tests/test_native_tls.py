"""WSForwardTLS native: sessions leave OpenSSL, and nothing else changes."""

import re
import ssl
import threading

import pytest

from harness import config, http, preload, relayed, relaysite, steps, wait, websocket
from harness.draining import Traffic, site  # noqa: F401
from harness.records import HANDSHAKE, KEY_UPDATE, Records

VERSIONS = ["tls1.2", "tls1.3"]
SUITES = {
    "tls1.2": ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    "tls1.3": ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"],
}
#: One that is not protected as native sessions have it.
CBC = "ECDHE-ECDSA-AES128-SHA256"
WAYS = [(version, suite) for version, suites in SUITES.items() for suite in suites]
SIZES = (1, 125, 16384, 100_000)
#: A KeyUpdate that wants one in return, update_requested (RFC 8446 4.6.3).
ASKING = KEY_UPDATE[:-1] + b"\1"
FRAME = websocket.Frame(websocket.TEXT, b"after").encode(mask=True)
NATIVE = "WSForwardTLS native"


def suite_lines(version, suite):
    """For a virtual host and for its back ends."""
    protocol, name = ("TLSv1.2", suite) if version == "tls1.2" else ("TLSv1.3", f"TLSv1.3 {suite}")
    return f"""SSLProtocol -all +{protocol}
SSLCipherSuite {name}
SSLProxyProtocol -all +{protocol}
SSLProxyCipherSuite {name}"""


@pytest.fixture(scope="module")
def origins(shared_backend):
    return relaysite.origins(shared_backend)


@pytest.fixture(scope="module")
def relay(shared_httpd, origins):
    made = shared_httpd()
    made.directives(f"{NATIVE}\nLimitRequestFieldSize 32000")
    ports = {suite: (suite_lines(version, suite), True) for version, suite in [*WAYS, ("tls1.2", CBC)]}
    ports["trace"] = ("LogLevel ssl:trace4", True)
    return relaysite.start(made, origins, ports=ports)


@pytest.fixture
def server(relay):
    yield relay
    relayed.wait_figure(relay, "Tunnels", 0)


@pytest.fixture
def records(server, client, certificate, tmp_path):
    """A TLS 1.3 client and the maker of its records."""
    context = certificate.client_context("tls1.3")
    context.keylog_filename = str(tmp_path / "keys")
    talk = client(server.ports["tls"], context)
    return talk, Records(talk.sock, tmp_path / "keys")


def sessions(before, server):
    """What became of the TLS sessions since then."""
    now = relayed.figures(server)
    names = [name for name in now if name.startswith("Tls-")]
    assert len(names) >= 5
    grown = {name.removeprefix("Tls-"): now[name] - before[name] for name in names}
    return {name: count for name, count in grown.items() if count}


def expect_sessions(before, server, expected):
    """A side counts when httpd has let go of it, which may be after the hand-over."""
    wait.until(lambda: sessions(before, server) == expected, lambda: sessions(before, server))


def converse(talk):
    """Both ways, in one record and in several, to the orderly end."""
    for size in SIZES:
        talk.echoes(bytes(size))
    talk.half_close()
    assert talk.end() == "close_notify"
    talk.close()


def goes(server, client, port, context, path, *, ending=converse, **options):
    """A tunnel to its end; what became of its sessions."""
    before = relayed.figures(server)
    with relayed.Counted(server, HandedOver=1, Ended_closed=1):
        ending(relayed.opened(server, client(server.ports[port], context), path, **options))
    return sessions(before, server)


@pytest.mark.parametrize(("version", "suite"), WAYS)
@pytest.mark.parametrize("path", ["/", "/tls/"])
def test_sessions_leave_openssl(server, client, certificate, version, suite, path):
    """Of clients, and of back ends too; with each cipher."""
    context = certificate.client_context(version)
    found = goes(server, client, suite, context, path)
    assert found == {"native": 2 if path == "/tls/" else 1}
    server.log.wait_for("WSF0208: .*: TLS of the client left OpenSSL")


def test_a_plain_client_of_a_tls_back_end(server, client):
    def ending(talk):
        for size in SIZES:
            talk.echoes(bytes(size))
        talk.half_close()
        assert talk.end() == "eof"
        talk.close()
    assert goes(server, client, "plain", None, "/tls/", ending=ending) == {"native": 1}


@pytest.mark.parametrize("path", ["/", "/tls/"])
def test_a_cipher_that_stays(server, client, certificate, path):
    context = certificate.client_context("tls1.2")
    context.set_ciphers(CBC)
    found = goes(server, client, CBC, context, path)
    assert found == {"suite": 2 if path == "/tls/" else 1}
    server.log.wait_for("WSF0208: .*: TLS of the client stays in OpenSSL: its cipher is neither")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_handshake_that_mod_ssl_itself_follows(server, client, certificate, version):
    """At trace4 and above a BIO has mod_ssl's own callback."""
    assert goes(server, client, "trace", certificate.client_context(version), "/") == {"untraced": 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_last_record_that_is_long(server, client, certificate, version):
    fields = [("X-Long", "x" * 12_000)]
    assert goes(server, client, "tls", certificate.client_context(version), "/", fields=fields) == {"large-record": 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_that_was_resumed(server, client, certificate, version):
    context = certificate.client_context(version)
    with client(server.ports["tls"], context) as first:
        first.ask(http.request("/favicon.ico", fields=[("Connection", "close")]))
        first.end()
        kept = first.sock._tls.session
    assert kept is not None
    before = relayed.figures(server)
    talk = client(server.ports["plain"])
    talk.close()
    talk = Resumed(server, client, context, kept).talk
    relayed.opened(server, talk)
    converse(talk)
    relayed.wait_figure(server, "Tunnels", 0)
    expect_sessions(before, server, {"native": 1})


class Resumed:
    """A client that goes on with a session."""

    def __init__(self, server, client, context, session):
        wrap = context.wrap_bio

        def with_session(*args):
            return wrap(*args, session=session)
        # Its C type takes no other attributes.
        like = type("Context", (), {"wrap_bio": staticmethod(with_session)})()
        self.talk = client(server.ports["tls"], like)
        assert self.talk.sock._tls.session_reused


# Keys that change.


def test_key_updates_of_the_client(server, records):
    """Some of them want one in return."""
    talk, raw = records
    with relayed.Counted(server, HandedOver=1, open=1):
        before = relayed.figures(server)
        raw.send(http.handshake())
        assert talk.read_head().status == 101
        relayed.wait_figure(server, "Tunnels", 1)
        expect_sessions(before, server, {"native": 1})
    for message in (KEY_UPDATE, ASKING, ASKING, KEY_UPDATE):
        raw.send(message, HANDSHAKE)
        raw.update_key()
        raw.send(FRAME)
        assert talk.read_frame().payload == b"after"
    talk.close()


def test_key_update_before_the_request(server, records):
    talk, raw = records
    before = relayed.figures(server)
    raw.send(KEY_UPDATE, HANDSHAKE)
    raw.update_key()
    raw.send(http.handshake())
    assert talk.read_head().status == 101
    relayed.wait_figure(server, "Tunnels", 1)
    # OpenSSL 1.1.1 does not tell the secret that follows: the session stays, and works.
    is_told = "OpenSSL/1.1.1" not in server.status()["ServerVersion"]
    expect_sessions(before, server, {"native" if is_told else "unproved": 1})
    raw.send(FRAME)
    assert talk.read_frame().payload == b"after"
    talk.close()


def test_key_update_at_the_hand_over(server, records):
    """It is the last record, so that the keys behind it cannot be proved: the session stays, and works."""
    talk, raw = records
    before = relayed.figures(server)
    both = raw.record(http.handshake()) + raw.record(ASKING, HANDSHAKE)
    raw.sock.sendall(both)
    raw.update_key()
    assert talk.read_head().status == 101
    relayed.wait_figure(server, "Tunnels", 1)
    found = sessions(before, server)
    assert found in ({"unproved": 1}, {"unfinished": 1}, {"no-record": 1}, {"native": 1}), found
    raw.send(FRAME)
    assert talk.read_frame().payload == b"after"
    talk.close()


def test_a_record_that_is_there_in_part(server, records):
    """It goes along with its session, which stays."""
    talk, raw = records
    before = relayed.figures(server)
    second = raw.record(http.handshake()), raw.record(FRAME)
    raw.sock.sendall(second[0] + second[1][:9])
    assert talk.read_head().status == 101
    relayed.wait_figure(server, "Tunnels", 1)
    assert sum(sessions(before, server).values()) == 1
    raw.sock.sendall(second[1][9:])
    assert talk.read_frame().payload == b"after"
    talk.close()


# What a peer must not send.


@pytest.mark.parametrize("what", ["a record that was changed", "a record twice", "a message that is none"])
def test_hostile_records_end_the_tunnel(server, records, what):
    talk, raw = records
    raw.send(http.handshake())
    assert talk.read_head().status == 101
    relayed.wait_figure(server, "Tunnels", 1)
    record = raw.record(FRAME)
    if what == "a record that was changed":
        raw.sock.sendall(record[:-1] + bytes([record[-1] ^ 1]))
    elif what == "a record twice":
        raw.sock.sendall(record + record)
    else:
        raw.send(bytes([99, 0, 0, 0]), HANDSHAKE)
    with pytest.raises(ssl.SSLError, match="ALERT"):
        talk.end()
    [end] = relayed.ends(server)
    assert end.by == "client" and end.why.startswith("tls: "), end
    talk.close()


# Where it is set, and where it is not.


@pytest.mark.parametrize("line", ["", "WSForwardTLS openssl", f"{NATIVE}\nWSForwardTLS openssl"])
def test_sessions_stay_where_it_is_not_set(httpd, origins, client, certificate, monkeypatch, line):
    monkeypatch.delenv("WSF_TLS", raising=False)
    server = httpd()
    server.directives(line)
    relaysite.start(server, origins)
    assert goes(server, client, "tls", certificate.client_context("tls1.3"), "/tls/") == {"off": 2}
    assert not server.log.matching("WSF0208")


@pytest.mark.parametrize(("name", "found", "why", "is_known_before"), [
    ("_set_keylog_callback", "0", "the OpenSSL of mod_ssl has no SSL_CTX_set_keylog_callback", True),
    # OpenSSL 3's, and 1.1.1's.
    ("_derive", "nothing", "HKDF of its libcrypto does not work", False),
])  # fmt: skip
def test_openssl_that_lacks_something(httpd, origins, client, certificate, scratch, name, found, why, is_known_before):
    """It is said, and its sessions stay in it."""
    server = httpd()
    server.directives(NATIVE)
    said = f"WSF0207: WSForwardTLS native does nothing: {why}"
    server.expect_log(said)
    with preload.loaded(preload.build("lacking", scratch, NAME=f'"{name}"', FOUND=found)):
        relaysite.start(server, origins)
        status, text = server.configtest()
    assert status == 0
    assert (said in text) == is_known_before, text
    assert goes(server, client, "tls", certificate.client_context("tls1.3"), "/tls/") == {"off": 2}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("mpm", "place"), [("event", 0), ("event", 1), ("prefork", 1)])
def test_virtual_hosts_by_name(httpd, origins, client, certificate, mpm, place, version):
    """A handshake begins with the SSL_CTX of the first. The name that the client asks for brings its session another."""
    server = httpd(mpm=mpm)
    server.directives(NATIVE)
    found = f'ServerName localhost\nWSForward On\nWSForwardRelay On\nProxyPass "/" "{origins["tcp"].url("http")}"'
    texts = ["", ""]
    texts[place] = found
    port = server.vhost(texts[0], tls=True)
    second = config.vhost(f"127.0.0.1:{port}", texts[1], certificate)
    server.directives(re.sub(r"(?m)^Listen .*\n", "", second))
    server.ports = {"tls": port}
    server.start()
    for _ in range(2):
        found = goes(server, client, "tls", certificate.client_context(version), "/", host="localhost")
        assert found == {"native": 1}
        server.reload()


@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_keys_are_logged(httpd, origins, client, certificate, monkeypatch, mpm):
    """mod_ssl's callback for SSLKEYLOGFILE is called as before, after a reload too."""
    server = httpd(mpm=mpm)
    keys = server.directory / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    server.directives(NATIVE)
    relaysite.start(server, origins)

    def lines():
        words = [line.split()[0] for line in keys.read_text().splitlines() if not line.startswith("#")]
        return {label: words.count(label) for label in ("CLIENT_RANDOM", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")}
    for times in (1, 2):
        for version in VERSIONS:
            assert goes(server, client, "tls", certificate.client_context(version), "/") == {"native": 1}
        assert lines() == dict.fromkeys(lines(), times)
        server.reload()


# What happens to their processes.


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_tunnels_outlive_their_children(site, client, certificate, mpm):
    one = site(mpm, NATIVE)
    before = relayed.figures(one.server)
    tunnels = []
    for number in range(8):
        talk = client(one.tls, certificate.client_context(VERSIONS[number % 2]))
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
        tunnels.append(talk)
    wait.until(lambda: one.count("Tunnels") == 8, "they are relayed")
    assert sessions(before, one.server) == {"native": 8}
    traffic = Traffic(tunnels)
    for _ in range(3):
        one.server.reload()
    wait.until(one.drains, "a drain process has them")
    traffic.end()
    for talk in tunnels:
        talk.echoes(b"x" * 100_000)
        talk.half_close()
        assert talk.end() == "close_notify"
        talk.close()
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")


@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_a_reload_changes_it_for_new_tunnels(site, client, certificate, monkeypatch, mpm):
    monkeypatch.delenv("WSF_TLS", raising=False)
    one = site(mpm, NATIVE)
    server, talks = one.server, []
    at = server._directives.index(NATIVE)
    for line, what in [(NATIVE, "native"), ("WSForwardTLS openssl", "off"), (NATIVE, "native")]:
        if server._directives[at] != line:
            server._directives[at] = line
            server.reload()
        before = relayed.figures(server)
        talk = relayed.opened(server, client(one.tls, certificate.client_context("tls1.3")))
        expect_sessions(before, server, {what: 1})
        talks.append(talk)
        for each in talks:
            each.echoes()


def test_back_end_that_goes_on_with_a_key_of_its_own(server, origins, client, certificate):
    """Nothing of the client is lost while both sides send at once."""
    go = threading.Event()
    origins["tls"].answers(steps.switch(), steps.wait_for(go), bytes(300_000), steps.websocket_echo, steps.close)
    before = relayed.figures(server)
    talk = relayed.opened(server, client(server.ports["tls"], certificate.client_context("tls1.3")), "/tls/")
    expect_sessions(before, server, {"native": 2})
    go.set()
    talk.send(FRAME)
    assert talk.read_exactly(300_000) == bytes(300_000)
    assert talk.read_frame().payload == b"after"
    talk.close()




class Https:
    """A TLS back end where a plain one is expected."""

    def __init__(self, origin):
        self.origin = origin

    def url(self, _scheme):
        return self.origin.url("https")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [24, pytest.param(300, marks=pytest.mark.slow)])
def test_children_of_prefork_share_a_process(site, backend, client, certificate, count):
    """Their tunnels are sent to it, those with TLS on either side too."""
    one = site("prefork", NATIVE, "SSLProxyEngine on", origin=Https(backend(tls=True)))
    tunnels = []
    for number in range(count):
        talk = client(one.tls, certificate.client_context(VERSIONS[number % 2]))
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
        tunnels.append(talk)
    wait.until(lambda: one.count("Tunnels") == count, "they are relayed")
    traffic = Traffic(tunnels[:8])
    for _ in range(20):
        one.server.reload()
    wait.until(lambda: len(one.drains()) == 1, lambda: f"one drain process: {one.drains()}")
    traffic.end()
    for talk in tunnels:
        talk.echoes(b"x" * 20_000)
        talk.half_close()
        assert talk.end() == "close_notify"
        talk.close()
    wait.until(lambda: not one.drains(), "it ends with its tunnels")
    relayed.wait_figure(one.server, "Ended-closed", count)


@pytest.mark.timeout(180)
def test_what_stays_in_openssl_keeps_a_process_of_its_own(site, client, certificate):
    """Beside those that are sent: nothing is lost where a child has both."""
    one = site("event", f"{NATIVE}\nMaxConnectionsPerChild 8", "SSLCipherSuite ALL")
    before, tunnels = relayed.figures(one.server), []
    for number in range(24):
        context = certificate.client_context("tls1.2")
        context.set_ciphers(CBC if number % 3 else SUITES["tls1.2"][0])
        talk = client(one.tls, context)
        assert talk.ask(http.handshake()).status == 101
        tunnels.append(talk.echoes())
    wait.until(lambda: one.count("Tunnels") == len(tunnels), "they are relayed")
    assert sessions(before, one.server) == {"native": 8, "suite": 16}
    one.server.reload()
    wait.until(lambda: len(one.drains()) >= 2, one.drains)
    for talk in tunnels:
        talk.echoes(b"x" * 20_000)
        talk.close()
    wait.until(lambda: not one.drains(), "drain processes end with their tunnels")
