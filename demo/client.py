"""The demo's client: handshakes written by hand, and tunnels that are held open."""

import json
import os
import threading

from harness import http, websocket
from harness.rawclient import RawClient

NORMAL = b"\x03\xe8"


class Failed(Exception):
    """The demo does not show what it should."""


def handshake(port, path, extra=()):
    """A WebSocket handshake; returns the fields as sent, the response, and the client for more."""
    request = http.handshake(path, host=f"127.0.0.1:{port}", connection="keep-alive, Upgrade", fields=extra)
    client = RawClient(port)
    response = client.ask(request)
    if response.status == 101 and response.get("Sec-WebSocket-Accept") != websocket.ACCEPT:
        raise Failed("Sec-WebSocket-Accept does not belong to the key")
    return http.Message(request).fields, response, client


def plain(port, path):
    """A plain GET; returns the body of its 200."""
    with RawClient(port) as client:
        response = client.ask(http.request(path, fields=[("Connection", "close")]))
    if response.status != 200:
        raise Failed(f"GET {path}: {response.status}")
    return response.body


def close(client):
    """The closing handshake (RFC 6455 7.1.2)."""
    client.send_frame(websocket.Frame(websocket.CLOSE, NORMAL))
    answer = client.read_frame()
    client.close()
    if (answer.opcode, answer.payload) != (websocket.CLOSE, NORMAL):
        raise Failed("the Close frame was not answered by one with code 1000")


class Holder:
    """Holds tunnels open, each proved by an echo, and says something now and then."""

    HEARTBEAT = 20.0

    def __init__(self):
        self.port = None
        self.tunnels = []
        self.lock = threading.Lock()
        threading.Thread(target=self._heartbeat, daemon=True).start()

    def hold(self, count):
        """Opens tunnels until `count` are open; returns how many are."""
        with self.lock:
            while len(self.tunnels) < count:
                _, response, client = handshake(self.port, "/back/echo")
                if response.status != 101:
                    raise Failed(f"tunnel {len(self.tunnels) + 1} of {count}: {response.status}")
                self.tunnels.append(client.echoes(os.urandom(16)))
            return len(self.tunnels)

    def echo_all(self):
        """Every tunnel is proved again."""
        with self.lock:
            for client in self.tunnels:
                client.echoes(os.urandom(16))

    def release(self):
        """Closes all of them; returns how many are left, none."""
        with self.lock:
            for client in self.tunnels:
                try:
                    close(client)
                except (OSError, EOFError, Failed):
                    client.close()
            self.tunnels = []
            return 0

    def _heartbeat(self):
        while True:
            threading.Event().wait(self.HEARTBEAT)
            with self.lock:
                for client in list(self.tunnels):
                    try:
                        client.echoes(os.urandom(16))
                    except (OSError, EOFError, AssertionError):
                        client.close()
                        self.tunnels.remove(client)


def prove(port, stock_port, extra):
    """The main job: 101 and echoes with the module, neither without. Returns what was seen."""
    sent, response, client = handshake(port, "/back/seen", extra)
    if response.status != 101:
        raise Failed(f"with WSForward On the client got {response.status}, not 101")
    seen = json.loads(client.read_frame().payload)["headers"]
    for size in (1, 125, 126, 65535, 65536, 1 << 20):
        client.echoes(os.urandom(size))
    close(client)

    _, response, client = handshake(stock_port, "/back/seen", extra)
    client.close()
    stock = json.loads(response.body)["headers"] if response.status == 426 else None
    if stock is None or any(name.lower() == "upgrade" for name, _ in stock):
        raise Failed(f"with WSForward Off the client got {response.status}, not the 426 of a plain GET")
    return {"sent": sent, "on": seen, "off": stock}
