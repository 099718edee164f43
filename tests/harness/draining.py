"""A server whose children end while their tunnels go on."""

import contextlib
import os
import re
import signal
import threading
import uuid

import pytest

from . import http, procfs, wait


class Site:
    """A server with the relay on, and all processes that ever came from it."""

    def __init__(self, server, plain, tls, mark):
        self.server, self.plain, self.tls, self.mark = server, plain, tls, mark

    def drains(self):
        """Process ids of drain processes."""
        return procfs.named("wsforward-drain", self.mark)

    def count(self, key):
        """A figure of the status page."""
        return int(self.server.status()["WSForward" + key])


#: TLS tunnels in OpenSSL cannot be sent: each child leaves a process for its own, and so a test has many.
BY_FORK = "WSForwardTLS openssl"


@pytest.fixture
def site(httpd, backend, monkeypatch):
    """Makes such servers: `site(mpm, directives, directives of the virtual hosts)`. Both may be a
    function of the server."""
    made = []

    def make(mpm, more="", vhost="", *, origin=None, parameters="", **options):
        origin = origin or backend()
        mark = f"WSF_TEST_MARK={uuid.uuid4()}"
        monkeypatch.setenv(*mark.split("="))
        server = httpd(mpm=mpm, **options)
        more, vhost = (text(server) if callable(text) else text for text in (more, vhost))
        server.directives(more)
        text = f'WSForward On\nWSForwardRelay On\nProxyPass "/" "{origin.url("http")}" {parameters}\n{vhost}'
        one = Site(server, server.vhost(text), server.vhost(text, tls=True), mark)
        one.origin, one.directives = origin, more
        server.start()
        made.append(one)
        return one

    yield make
    for one in made:
        if one.server.running and one.drains():
            one.server.log.expect("WSF0310", certain=False)
        for pid in one.drains():
            # One that ended since it was looked for needs no end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if "MaxConnectionsPerChild" in one.directives and one.server.running:
            # Every look at the status page ends a child, whose slot httpd calls busy for up to a second.
            at = one.server._directives.index(one.directives)
            one.server._directives[at] = re.sub(r"(?m)^MaxConnectionsPerChild.*", "", one.directives)
            one.server.reload()


def opened(client, certificate, site, count):
    """Tunnels, half of them TLS, each having echoed once."""
    tunnels = []
    for number in range(count):
        tls = certificate.client_context("tls1.3" if number % 4 == 1 else "tls1.2")
        talk = client(site.tls, tls) if number % 2 else client(site.plain)
        assert talk.ask(http.handshake()).status == 101
        talk.echoes()
        tunnels.append(talk)
    wait.until(lambda: site.count("Tunnels") == count, f"{count} tunnels are relayed")
    return tunnels


class Traffic(threading.Thread):
    """Echoes checked messages through some tunnels until told to end; `error` says what went wrong."""

    def __init__(self, tunnels):
        super().__init__()
        self.tunnels, self.done, self.error, self.messages = tunnels, threading.Event(), None, 0
        self.start()

    def run(self):
        try:
            while not self.done.is_set():
                for talk in self.tunnels:
                    talk.echoes(os.urandom(1 + self.messages * 37 % 5000))
                    self.messages += 1
        except Exception as error:  # whatever it is, the test shows it
            self.error = error

    def end(self):
        self.done.set()
        self.join(30)
        assert not self.is_alive()
        assert self.error is None, repr(self.error)
        assert self.messages > 0
