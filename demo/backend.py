"""The demo's back end: it tells what it got, and echoes. Python's library only."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from client import Failed
from harness import websocket


class Backend(ThreadingHTTPServer):
    """Serves on a free loopback port until closed; `hold` and `release` are the page's orders."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, hold, release):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hold, self.release = hold, release
        self.lock = threading.Lock()
        self.open_tunnels = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        """The TCP port that it listens on."""
        return self.server_address[1]

    def handle_error(self, request, client_address):
        """A peer that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """/seen says which headers came, /echo echoes, /tunnels counts and holds tunnels."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/tunnels":
            self.answer(200, {"open": self.server.open_tunnels})
        elif self.path not in ("/seen", "/echo"):
            self.answer(404, {"error": self.path})
        elif not self.asks_for_websocket():
            self.answer(426, {"headers": self.headers.items()}, Upgrade="websocket", Connection="Upgrade")
        else:
            self.tunnel()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/tunnels":
            count = max(0, min(1000, json.loads(body)["hold"]))
            try:
                held = self.server.hold(count) if count else self.server.release()
                self.answer(200, {"held": held})
            except (Failed, AssertionError, EOFError, OSError) as error:
                self.answer(500, {"error": str(error)})
        else:
            self.answer(404, {"error": self.path})

    def asks_for_websocket(self):
        """RFC 6455 4.2.1."""
        tokens = [token.strip().lower() for token in self.headers.get("Connection", "").split(",")]
        return (self.headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in tokens
                and self.headers.get("Sec-WebSocket-Version") == "13"
                and "Sec-WebSocket-Key" in self.headers)

    def tunnel(self):
        """Sends the 101, and echoes until the client closes."""
        with self.server.lock:
            self.server.open_tunnels += 1
        try:
            self.send_response_only(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            key = self.headers["Sec-WebSocket-Key"].encode()
            self.send_header("Sec-WebSocket-Accept", websocket.accept(key).decode())
            self.end_headers()
            self.close_connection = True
            if self.path == "/seen":
                self.send(websocket.TEXT, json.dumps({"headers": self.headers.items()}).encode())
            while (frame := websocket.read_frame(self.read_exactly)).opcode != websocket.CLOSE:
                if frame.opcode == websocket.PING:
                    self.send(websocket.PONG, frame.payload)
                elif frame.opcode != websocket.PONG:
                    self.send(frame.opcode, frame.payload, frame.fin)
            self.send(websocket.CLOSE, frame.payload[:2])
        except (EOFError, OSError):
            pass
        finally:
            with self.server.lock:
                self.server.open_tunnels -= 1

    def read_exactly(self, size):
        """`size` bytes, or EOFError where the client is gone."""
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def send(self, opcode, payload, fin=True):
        """One frame to the client."""
        self.wfile.write(websocket.Frame(opcode, payload, fin).encode(mask=False))

    def answer(self, status, content, **headers):
        """A plain answer, in JSON."""
        body = json.dumps(content).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
