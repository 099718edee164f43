"""noVNC before websockify, in a browser: a desktop is seen and typed on."""

import sys
from contextlib import closing

from harness import wait
from novnc.conftest import NOVNC
from novnc.xserver import COLOUR, XServer

from .conftest import reload_and_stay, websockets_of


def test_novnc(run, site, browser):
    with closing(XServer("An X server behind websockify behind Apache:")) as desktop:
        app = run(lambda port, _: [sys.executable, "-m", "websockify", "--web", NOVNC, f"127.0.0.1:{port}",
                                   f"127.0.0.1:{desktop.port}"])  # fmt: skip
        server = site("noVNC", p6080=app.port)
        browser.driver.get(f"{server.page_url}/vnc.html?autoconnect=true")
        browser.wait_connected()
        wait.until(lambda: browser.share_of(COLOUR) > 0.3, "the terminal is seen", 20)
        browser.click_on_desktop()
        browser.type("before ")
        desktop.wait_typed("before ")

        def type_on():
            browser.type("after")
            desktop.wait_typed("before after")
        reload_and_stay(server, type_on)
        assert websockets_of(browser) == ([101], [])
