"""What `configtest` and the start say of settings that are allowed and have a price."""

import os
import signal
from pathlib import Path

import pytest

from harness import http, paths, procfs, wait
from harness.h2client import Http2Client

VHOST = '<VirtualHost 127.0.0.1:1>\n{}\n</VirtualHost>\n'
ON, OFF, FORWARD = "H2WebSockets on", "H2WebSockets off", "WSForward On"


@pytest.mark.parametrize(("text", "warnings"), [
    (f"{ON}\n{FORWARD}", 1),
    (f'{ON}\n<Location "/chat">\n{FORWARD}\n</Location>', 1),
    (VHOST.format(f'H2WebSockets "On"\n{FORWARD}'), 1),
    (ON + "\n" + VHOST.format(FORWARD), 1),
    (FORWARD + "\n" + VHOST.format(ON), 1),
    (FORWARD + "\n" + VHOST.format(ON) + VHOST.format(OFF) + VHOST.format(ON), 2),
    (f"{OFF}\n{ON}\n{FORWARD}", 1),
    (FORWARD, 0),
    (ON, 0),
    (f"{OFF}\n{FORWARD}", 0),
    (f"{ON}\n{OFF}\n{FORWARD}", 0),
    (f"{ON}\nWSForward Off", 0),
    (VHOST.format(ON) + VHOST.format(FORWARD), 0),
    (ON + "\n" + VHOST.format(f"{OFF}\n{FORWARD}"), 0),
])  # fmt: skip
def test_websockets_over_http2_are_a_warning(httpd, text, warnings):
    """Where a tunnel of this module could be one, and nowhere else."""
    server = httpd(extra=["http2"])
    server.directives(text)
    status, said = server.configtest()
    assert status == 0, said
    assert said.count("WSF0120: H2WebSockets on (") == warnings, said


def test_websockets_over_http2_are_in_the_log(httpd):
    server = httpd(extra=["http2"])
    server.directives(f"{ON}\n{FORWARD}")
    server.expect_log(r"WSF0120: H2WebSockets on \(.*httpd.conf:[0-9]+\): ")
    server.start()


def test_six_websockets_of_a_stock_connection_hold_up_its_other_requests(httpd, backend, certificate):
    """Which the warning is about; to be looked at again when this fails."""
    origin, pages = backend(), backend()
    stock = httpd(module=None, extra=["http2"])
    port = stock.vhost(f"""Protocols h2 http/1.1
LogLevel http2:trace1
{ON}
ProxyPass "/page" "{pages.url("http")}"
ProxyPass "/" "{origin.url("http")}" upgrade=websocket""", tls=True)
    stock.start()
    with Http2Client(port, certificate.client_context("tls1.3", ["h2"])) as h2:
        tunnels = [h2.websocket() for _ in range(6)]
        assert [stream.status for stream in tunnels] == [200] * 6
        page = h2.request("/page")
        stock.log.wait_for("process, added to q", 7)
        # As long as a page takes on a connection of its own.
        with Http2Client(port, certificate.client_context("tls1.3", ["h2"])) as other:
            assert other.request("/page").status == 200
        assert len(pages.requests) == 1
        tunnels[0].end()
        assert page.status == 200


def itk():
    """mpm-itk's file: the installed one, else the unpacked one."""
    unpacked = Path(os.environ.get("WSF_UNPACKED", "/nonexistent"))
    files = (Path(paths.apxs("LIBEXECDIR")) / "mpm_itk.so", unpacked / "usr/lib/apache2/modules/mpm_itk.so")
    found = [file for file in files if file.exists()]
    if not found:
        pytest.skip("no mpm-itk (Debian: libapache2-mpm-itk, installed or unpacked below WSF_UNPACKED)")
    if os.geteuid() != 0:
        pytest.skip("mpm-itk needs root")
    return found[0]


def start_itk(httpd, origin, more="WSForwardRelay On"):
    server = httpd(mpm="prefork")
    server.directives(f"LoadModule mpm_itk_module {itk()}")
    server.port = server.vhost(f'WSForward On\n{more}\nProxyPass "/" "{origin.url("http")}"')
    return server


def test_mpm_itk_has_no_relay(httpd, backend, client):
    """It is said at the start, and a tunnel works in its process."""
    server = start_itk(httpd, backend())
    server.expect_log("WSF0121: WSForwardRelay On does nothing with mpm_itk")
    server.start()
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    talk.echoes()
    server.log.wait_for("WSF0201: tunnel stays in its worker thread: this process has no relay")


def test_a_process_of_mpm_itk_does_not_end_what_its_child_has(httpd, backend, client):
    """It is forked from the child, and shares the child's descriptors."""
    server = start_itk(httpd, backend())
    server.expect_log("WSF0121: ")
    server.start()
    talk = client(server.port)
    assert talk.ask(http.handshake()).status == 101
    # What answered whether httpd is up may still be ending, in a process of its own too.
    [(child, forked)] = wait.until(lambda: _alone(server), "only the tunnel's process is forked from a child")
    os.kill(forked, signal.SIGTERM)
    wait.until(lambda: not procfs.children(child), "the forked process ends")
    assert procfs.thread(child, "wsf-keeper")


def _alone(server):
    """The only process that is forked from a child, behind that child; nothing while there are more."""
    pairs = [(child, forked) for child in server.children for forked in procfs.children(child)]
    return pairs if len(pairs) == 1 else None


def test_mpm_itk_without_relay_is_no_warning(httpd, backend):
    server = start_itk(httpd, backend(), "")
    status, said = server.configtest()
    assert status == 0, said
    assert "WSF0121" not in said
