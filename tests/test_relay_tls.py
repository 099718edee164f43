"""TLS as sites have it: client certificates, keys logged, a second libssl in the process."""

import re
import shutil
import ssl
from pathlib import Path

import pytest

from harness import http, procfs, relayed, relaysite, websocket
from harness.stresspeer import StressPeer

VERSIONS = ["tls1.2", "tls1.3"]


@pytest.fixture
def origins(backend):
    return relaysite.origins(backend)


def talks(server, client, context, path):
    """A tunnel that is relayed, in both directions, to its orderly end."""
    with relayed.Counted(server, HandedOver=1, Ended_closed=1):
        talk = relayed.opened(server, client(server.ports["tls"], context), path)
        for size in (1, 16384, 100_000):
            talk.echoes(b"x" * size)
        talk.half_close()
        assert talk.end() == "close_notify"
        talk.close()


@pytest.mark.parametrize("path", ["/", "/tls/"])
@pytest.mark.parametrize("version", VERSIONS)
def test_client_certificates(httpd, origins, client, certificate, version, path):
    """Asked of clients, and shown to a back end that asks for one."""
    server = httpd()
    pair = server.directory / "pair.pem"
    pair.write_text(certificate.cert.read_text() + certificate.key.read_text())
    origins["tls"].tls.verify_mode = ssl.CERT_REQUIRED
    origins["tls"].tls.load_verify_locations(certificate.cert)
    relaysite.start(server, origins, f"""SSLVerifyClient require
SSLCACertificateFile {certificate.cert}
SSLProxyMachineCertificateFile {pair}""")
    context = certificate.client_context(version)
    context.load_cert_chain(certificate.cert, certificate.key)
    talks(server, client, context, path)


@pytest.mark.slow
@pytest.mark.parametrize(("mpm", "version"), [("event", "tls1.2"), ("event", "tls1.3"), ("prefork", "tls1.3")])
def test_client_certificates_go_with_their_tunnels(httpd, origins, client, certificate, monkeypatch, mpm, version):
    """mod_ssl frees the one of a connection only as it shuts it down."""
    at_first, later, most = 100, 400, 1024
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    server = httpd(mpm=mpm)
    # One child, whose memory it is.
    server.log.expect("AH00161", certain=False)
    server.directives("""<IfModule mpm_prefork_module>
StartServers 1
MinSpareServers 1
MaxSpareServers 1
MaxRequestWorkers 1
</IfModule>""")
    relaysite.start(server, origins, f"""LogLevel wsforward:warn
SSLVerifyClient require
SSLCACertificateFile {certificate.cert}""")
    context = certificate.client_context(version)
    context.load_cert_chain(certificate.cert, certificate.key)

    def cost(count):
        for _ in range(count):
            talk = client(server.ports["tls"], context)
            talk.send(http.handshake())
            assert talk.read_head().status == 101
            talk.close()
        relayed.wait_figure(server, "Tunnels", 0)
        return sum(procfs.private_kib(child) for child in server.children)
    before = cost(at_first)
    after = cost(later)
    print(f"{before} KiB after {at_first} tunnels, {after} KiB after {later} more")
    assert after - before < most


@pytest.mark.parametrize("when", ["in time", "late"])
@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_client_certificate_within_a_request(httpd, origins, client, certificate, mpm, when):
    """A Location asks for one, which TLS 1.3 does by a message of its own. mod_ssl waits for an answer,
    but a frame is one too: then the certificate comes to the relay, and mod_ssl must not hear of it."""
    server = httpd(mpm=mpm)
    # With no tickets each certificate is followed by a session for mod_ssl to store.
    relaysite.start(server, origins, f"""LogLevel ssl:trace2
SSLCACertificateFile {certificate.cert}
SSLSessionTickets off
<Location "/">
    SSLVerifyClient optional
</Location>""")
    context = certificate.client_context("tls1.3")
    context.load_cert_chain(certificate.cert, certificate.key)
    context.post_handshake_auth = True
    messages = []
    context._msg_callback = lambda _tls, way, _version, _content, kind, _data: messages.append((way, getattr(kind, "name", "")))
    shown, frame = ("write", "CERTIFICATE"), websocket.Frame(websocket.TEXT, b"hello").encode(mask=True)
    with relayed.Counted(server, HandedOver=1, Ended_closed=1):
        talk = client(server.ports["tls"], context)
        # A record of its own: of the first one mod_ssl has decrypted all.
        talk.send(http.handshake())
        if when == "late":
            talk.send(frame)
        else:
            assert talk.read_head().status == 101
        relayed.wait_figure(server, "Tunnels", 1)
        before = server.log.matching(r"\[ssl:")
        if when == "late":
            # What asks for it is read with the 101.
            assert shown not in messages
            assert talk.read_head().status == 101
        else:
            assert any(b"AH02275: Certificate Verification" in line for line in before)
            assert any(b"Session Cache: request=SET" in line for line in before)
            talk.send(frame)
        assert talk.read_frame().payload == b"hello"
        assert shown in messages
        # What is behind it arrives.
        talk.echoes(b"x" * 100_000)
        talk.half_close()
        assert talk.end() == "close_notify"
        talk.close()
    assert server.log.matching(r"\[ssl:") == before


@pytest.mark.slow
@pytest.mark.parametrize("mpm", ["event", "prefork"])
def test_keys_are_logged(httpd, certificate, monkeypatch, mpm):
    """mod_ssl's callback for SSLKEYLOGFILE looks at the connection of an SSL, which may outlive it here."""
    server = httpd(mpm=mpm)
    keys = server.directory / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    peer = StressPeer(certificate)
    try:
        peer.vhosts(server)
        server.start()
        result, failures = peer.run(count=90, at_once=30, size=5000, rounds=20)
        assert not failures, failures
        assert result["clients"] == result["origins"] == 90
        relayed.wait_figure(server, "Ended-closed", 90)
    finally:
        peer.close()
    # TLS 1.2 and 1.3.
    for label in ("CLIENT_RANDOM", "SERVER_TRAFFIC_SECRET_0"):
        assert re.search(f"^{label} ", keys.read_text(), re.M)


@pytest.fixture(scope="module")
def libssl(shared_httpd):
    """The file of the libssl that httpd uses, in whichever way mod_ssl is part of it."""
    server = shared_httpd(module=None).start()
    maps = Path(f"/proc/{server.children[0]}/maps").read_text()
    server.stop()
    return Path(re.search(r" (/\S*/libssl\S*)$", maps, re.M)[1])


@pytest.mark.parametrize("order", ["before mod_ssl", "behind mod_ssl"])
@pytest.mark.parametrize("version", VERSIONS)
def test_second_libssl(httpd, origins, client, certificate, libssl, version, order):
    """As php, perl or libpq may bring one along, whose symbols all can see: mod_ssl's own is used."""
    server = httpd()
    copy = server.directory / libssl.name
    shutil.copy(libssl, copy)
    copy.chmod(0o755)
    load = f"LoadFile {copy}"
    if order == "before mod_ssl":
        server._modules = f"{load}\n{server._modules}"
    else:
        server.directives(load)
    relaysite.start(server, origins)
    for child in server.children:
        maps = Path(f"/proc/{child}/maps").read_text()
        assert str(copy) in maps
        if order == "behind mod_ssl":
            assert str(libssl) in maps, "there is no second one"
    for path in ("/", "/tls/"):
        talks(server, client, certificate.client_context(version), path)
