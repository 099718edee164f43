"""One user's way: log in, open the desktop, see it, type, and outlive a reload of Apache."""

from harness import wait

from .desktop import Bridge
from .xserver import COLOUR


def walk(server, port, bridge, desktop, browser):
    """Goes it, by the virtual host at `port` of `server`; AssertionError where a step fails."""
    browser.log_in(port, "alice", Bridge.PASSWORD)
    browser.open_desktop("desk")
    browser.wait_connected()
    handshakes = [params for event, params in browser.websocket_events()
                  if event == "HandshakeResponseReceived"]
    assert [answer["response"]["status"] for answer in handshakes] == [101]
    assert bridge.messages()[:4] == [
        # Chromium sends no Referer on a WebSocket handshake.
        "WebSocket request at /websockify with Referer: None",
        "WebSocket upgrade request detected",
        "wsgi.websocket object is available",
        "Found container from session: desk",
    ]

    wait.until(lambda: browser.share_of(COLOUR) > 0.5,
               lambda: f"{browser.share_of(COLOUR):.0%} of the canvas is the terminal", 20)
    browser.click_on_desktop()
    browser.type("Hello, container. ")
    desktop.wait_typed("Hello, container. ")

    server.reload()
    browser.type("Still here after a reload.")
    desktop.wait_typed("Hello, container. Still here after a reload.")
    assert "connected" in browser.state
    # A connection that ends is a Closed event, whatever its code: 1006 included.
    assert [event for event, _ in browser.websocket_events() if event in ("Closed", "FrameError")] == []
