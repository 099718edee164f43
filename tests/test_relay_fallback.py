"""What keeps a tunnel in its worker thread, with one line that says why, and what does not."""

import os
import re
import shutil
import struct
import subprocess

import pytest

from harness import http, procfs, relayed, relaysite, steps, wait, websocket
from harness.h2client import Http2Client
from harness.relaysite import CLIENTS, dial
from harness.tlssocket import TlsSocket

MPMS = ["event", "worker", "prefork"]


@pytest.fixture
def origins(backend):
    return relaysite.origins(backend)


def stays(server, why):
    """Exactly one line that says that the tunnel stays and why."""
    [line] = server.log.wait_for(relayed.STAYS)
    assert why in line.decode(), line
    assert b"wsforward:debug" in line
    assert not server.log.matching(relayed.HANDED_OVER)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("mpm", MPMS)
@pytest.mark.parametrize(("which", "name"), [("DumpIOInput On", "dumpio_in"), ("DumpIOOutput On", "dumpio_out")])
def test_dumpio_keeps_the_tunnel(httpd, origins, client, mpm, kind, which, name):
    """A connection filter that is to see every byte; it has several attempts to be asked."""
    server = httpd(mpm=mpm, extra=["dumpio"])
    # It adds its filters at this level only.
    relaysite.start(server, origins, f"{which}\nLogLevel dumpio:trace7 wsforward:debug")
    talk = dial(server, client, kind)
    with relayed.Counted(server, Fallback_filter=1, HandedOver=0):
        assert talk.ask(http.handshake()).status == 101
        for number in range(40):
            talk.echoes(b"%d" % number)
        # A child of prefork may still be at what came before.
        wait.until(lambda: int(server.status()["BusyWorkers"]) == 2, "the tunnel holds a worker, and nobody else")
        talk.echoes(b"x" * 200_000)
    stays(server, f"has the filter {name}")


@pytest.mark.parametrize("mpm", MPMS)
def test_ratelimit_keeps_the_tunnel(httpd, origins, client, mpm):
    server = httpd(mpm=mpm, extra=["ratelimit"])
    relaysite.start(server, origins, """<Location "/slow">
    SetOutputFilter RATE_LIMIT
    SetEnv rate-limit 400
</Location>""")
    with relayed.Counted(server, Fallback_filter=1, HandedOver=0):
        talk = dial(server, client, "plain")
        assert talk.ask(http.handshake("/slow")).status == 101
        talk.echoes()
    stays(server, "rate_limit")
    # Elsewhere on the same server nothing is in the way.
    with relayed.Counted(server, HandedOver=1, open=1):
        relayed.opened(server, dial(server, client, "plain")).echoes()


@pytest.mark.parametrize("mpm", ["event", "worker"])
def test_http2_keeps_the_tunnel(httpd, origins, client, certificate, mpm):
    server = httpd(mpm=mpm, extra=["http2"])
    server.expect_log("WSF0120: H2WebSockets on")
    relaysite.start(server, origins, "Protocols h2 http/1.1\nH2WebSockets on")
    with Http2Client(server.ports["tls"], certificate.client_context("tls1.3", ["h2"])) as h2:
        with relayed.Counted(server, Fallback_http2=1, HandedOver=0):
            stream = h2.websocket()
            assert stream.status == 200
            for number in range(40):
                frame = websocket.Frame(websocket.BINARY, b"%d" % number)
                stream.send(frame.encode(mask=True))
                assert websocket.read_frame(stream.read_exactly) == frame
        stays(server, "HTTP/2")
    # HTTP/1.1 of the same virtual host is handed over.
    with relayed.Counted(server, HandedOver=1, open=1):
        talk = client(server.ports["tls"], certificate.client_context("tls1.3", ["http/1.1"]))
        relayed.opened(server, talk).echoes()


@pytest.mark.parametrize("mpm", MPMS)
def test_back_end_that_has_ended_keeps_the_tunnel(httpd, origins, client, mpm):
    """Bytes and the end behind the 101: nothing to relay, and all of it arrives."""
    server = httpd(mpm=mpm)
    relaysite.start(server, origins)

    def all_at_once(connection):
        send, parts = connection.send, []
        connection.send = parts.append
        steps.switch()(connection)
        connection.send = send
        connection.send(b"".join(parts) + b"bye" * 1000)
        connection.half_close()
    origins["tcp"].answers(all_at_once, steps.drain, steps.close)
    begin = relayed.figures(server)
    for number in range(1, 6):
        talk = dial(server, client, "plain")
        assert talk.ask(http.handshake()).status == 101
        assert talk.read_to_end() == b"bye" * 1000
        talk.send(b"thanks")
        talk.half_close()
        connection = origins["tcp"].connections[-1]
        connection.wait_closed()
        assert connection.received == b"thanks"
        now = relayed.figures(server)
        # The end may come a moment after the bytes: then the relay carries it.
        grown = {name: now[name] - begin[name] for name in ("HandedOver", "Fallback-ended")}
        assert sum(grown.values()) == number, grown
        talk.close()


#: A module whose connection filter is named like mod_ssl's, and which passes all bytes on.
IMPOSTOR = r"""
#include "httpd.h"
#include "http_config.h"
#include "http_connection.h"
#include "util_filter.h"

static apr_status_t pass(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode,
                         apr_read_type_e block, apr_off_t bytes)
{
    return ap_get_brigade(f->next, bb, mode, block, bytes);
}

static int add(conn_rec *c, void *socket)
{
    ap_add_input_filter("ssl/tls filter", NULL, NULL, c);
    return OK;
}

static void hooks(apr_pool_t *p)
{
    ap_register_input_filter("ssl/tls filter", pass, NULL, AP_FTYPE_CONNECTION + 5);
    ap_hook_pre_connection(add, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(impostor) = { STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, hooks };
"""


@pytest.mark.slow
def test_tls_that_is_not_shown_keeps_the_tunnel(httpd, backend, client, tmp_path):
    """Bytes behind a TLS filter are not the tunnel's, whoever's it is: without its session they stay there."""
    (tmp_path / "mod_impostor.c").write_text(IMPOSTOR)
    subprocess.run([os.environ.get("APXS", "apxs"), "-c", "mod_impostor.c"], cwd=tmp_path, check=True, capture_output=True)
    server, origin = httpd(without=["ssl", "socache_shmcb"]), backend()
    shutil.copy(tmp_path / ".libs" / "mod_impostor.so", server.directory)
    server.directives(f"LoadModule impostor_module {server.directory}/mod_impostor.so")
    port = server.vhost(f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origin.url("http")}"')
    server.start()
    with relayed.Counted(server, Fallback_tls=1, HandedOver=0):
        talk = client(port)
        assert talk.ask(http.handshake()).status == 101
        talk.echoes(b"x" * 100_000)
    stays(server, "TLS of the client: mod_ssl does not give access to it")


def limit_descriptors(pid, most):
    """Sets what a child may open, as its own user: for others prlimit(2) wants more than a container's root has."""
    own = dict(zip(("user", "group"), procfs.owner(pid), strict=True)) if os.geteuid() == 0 else {}
    subprocess.run([needed("prlimit"), f"--pid={pid}", f"--nofile={most}:"], check=True, **own)


def test_no_descriptor_keeps_the_tunnel(httpd, origins, client):
    """Enough for mod_proxy, none for the relay. A tunnel later on is handed over."""
    server = httpd()
    relaysite.start(server, origins)
    [child] = server.children
    talk = dial(server, client, "plain")
    assert talk.ask(http.request()).status == 200
    server.expect_log("WSF0201.*no descriptor for the relay: Too many open files")
    with relayed.Counted(server, Fallback_descriptors=1, HandedOver=0):
        # The connections that made the status page linger.
        wait.steady(lambda: len(procfs.numbers(child)))
        numbers = procfs.numbers(child)
        before = procfs.descriptor_limits(child)[0]
        # mod_proxy's are the connection to the back end and a poll set.
        free = [number for number in range(before) if number not in numbers]
        limit_descriptors(child, free[1] + 1)
        try:
            assert talk.ask(http.handshake()).status == 101
            talk.echoes()
            server.log.wait_for("WSF0201")
        finally:
            limit_descriptors(child, before)
        talk.echoes(b"x" * 100_000)
    talk.close()
    with relayed.Counted(server, HandedOver=1, open=1):
        relayed.opened(server, dial(server, client, "plain")).echoes()


STEADY = {"prefork": "StartServers 2\nMinSpareServers 2\nMaxSpareServers 2\nServerLimit 2\nMaxRequestWorkers 2"}
STEADY["event"] = STEADY["worker"] = "ServerLimit 1\nMaxRequestWorkers 32\nMaxSpareThreads 32"


@pytest.mark.parametrize("mpm", MPMS)
def test_relay_threads_that_die(httpd, origins, client, monkeypatch, mpm):
    """Their tunnels end, the log says so, and tunnels stay in their worker threads from then on."""
    strace = needed("strace")
    monkeypatch.delenv("RUST_BACKTRACE", raising=False)
    server = httpd(mpm=mpm)
    # The children that are there now are those that the last tunnel may meet.
    server.directives(STEADY[mpm])
    relaysite.start(server, origins)
    talks = [relayed.opened(server, dial(server, client, kind)).echoes() for kind in CLIENTS]
    threads = [f"--attach={procfs.thread(child, 'relay-0')}" for child in server.children]
    # Waiting for events fails: nothing that a relay could go on with. It is interrupted for that.
    calls = "epoll_wait,epoll_pwait"
    subprocess.run([strace, "-qq", "-o", "/dev/null", *threads, "-e", f"trace={calls}",
                    "-e", f"inject={calls}:error=EBADF"], check=True, timeout=wait.scaled(wait.DEADLINE))  # fmt: skip
    for talk in talks:
        assert talk.end() == "reset"
        talk.close()
    ends = relayed.ends(server, len(talks))
    assert {(end.by, end.why) for end in ends} == {("server", "thread-died")}
    assert all(b"wsforward:error" in line for line in server.log.matching(relayed.ENDED))
    figures = relayed.figures(server)
    assert (figures["Ended-thread-died"], figures["RelayThreads"], figures["Tunnels"]) == (len(talks), 0, 0)
    assert len(server.log.matching("WSF0205.*a relay thread died")) == len(threads)
    # This test's own doing; a panic's own words have no form.
    own = re.compile(r"WSF020[25]|^crash: thread 'relay-0'|^not expected: ([^[]|$)")
    assert [line for line in server.log.unexpected() if not own.search(line)] == []
    server.log.open_span()
    with relayed.Counted(server, Fallback_no_relay=1, HandedOver=0):
        talk = dial(server, client, "plain")
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
    stays(server, "this process has no relay")


def needed(program):
    """Where a program is; by itself the suite does without, the whole check does not."""
    found = shutil.which(program)
    if not found and os.environ.get("CI") != "true":
        pytest.skip(f"needs {program}")
    assert found, f"{program} is not installed"
    return found


# What does not prevent it.


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("mpm", MPMS)
def test_reqtimeout_and_logio_do_not_prevent_it(httpd, origins, client, mpm, kind):
    """Debian has both: reqtimeout's limits, and bytes counted by the static mod_logio."""
    server = httpd(mpm=mpm, extra=["reqtimeout"])
    server.directives('LogFormat "%h %I %O %>s" io\nCustomLog io.log io')
    relaysite.start(server, origins, "RequestReadTimeout handshake=1 header=1-2,MinRate=500 body=1,MinRate=500")
    with relayed.Counted(server, HandedOver=1, open=1):
        talk = relayed.opened(server, dial(server, client, kind)).echoes()
    assert not server.log.matching(relayed.STAYS)
    talk.echoes()


V1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH4s4sHH", 0x21, 0x11, 12, bytes([192, 0, 2, 7]), bytes([127, 0, 0, 1]), 4711, 80)


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("mpm", MPMS)
def test_proxy_protocol_of_remoteip_does_not_prevent_it(httpd, origins, client, mpm, header):
    """Its header was read long before; the filter has nothing more to do. The record has the true client."""
    server = httpd(mpm=mpm, extra=["remoteip"])
    relaysite.start(server, origins, "RemoteIPProxyProtocol On")
    with relayed.Counted(server, HandedOver=1, open=1) as counted:
        talk = dial(server, client, "plain")
        talk.send(header)
        assert talk.ask(http.handshake()).status == 101
        counted.wait_for(HandedOver=1)
        talk.echoes()
    talk.send_frame(websocket.close_frame(1000))
    assert talk.end() == "eof"
    talk.close()
    [end] = relayed.ends(server)
    assert end.client.startswith("192.0.2.7:")


def test_proxy_protocol_before_tls(httpd, origins, client, certificate):
    server = httpd(extra=["remoteip"])
    relaysite.start(server, origins, "RemoteIPProxyProtocol On")
    talk = client(server.ports["tls"])
    talk.send(V1)
    talk.sock = TlsSocket(talk.plain, certificate.client_context("tls1.3"), server_hostname="localhost")
    talk.sock.do_handshake()
    with relayed.Counted(server, HandedOver=1, open=1):
        relayed.opened(server, talk).echoes()
