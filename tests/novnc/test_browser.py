"""noVNC in a real browser: TLS, the vhost recipe, Flask, and a desktop at the end of it."""

import pytest

from .browser import Browser
from .conftest import NOVNC
from .desktop import Bridge, site
from .walk import walk
from .xserver import XServer


@pytest.fixture
def desktop():
    server = XServer()
    yield server
    server.close()


@pytest.fixture
def browser():
    window = Browser()
    yield window
    window.close()


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
@pytest.mark.parametrize("relay", ["Off", "On"])
def test_a_desktop_in_the_browser(httpd, desktop, browser, mpm, relay):
    bridge = Bridge({("alice", "desk"): desktop.port}, novnc=NOVNC)
    try:
        server = httpd(mpm=mpm)
        port = server.vhost(site(bridge.port) + f"WSForwardRelay {relay}\n", tls=True)
        server.start()
        try:
            walk(server, port, bridge, desktop, browser)
        finally:
            browser.screenshot(f"novnc-{mpm}-relay-{relay.lower()}")
    finally:
        bridge.close()
