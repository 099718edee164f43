"""The parts of the noVNC scenario: containers, the Flask bridge before them, the vhost recipe."""

import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from harness import http, wait
from harness.rawclient import RawClient

HERE = Path(__file__).resolve().parent

#: What administrators copy from each other. Nothing but the port may differ.
RECIPE = """\
RewriteCond %{HTTP:Upgrade} =websocket [NC]
RewriteCond %{HTTP:Connection} upgrade [NC]
RewriteRule ^/(.*) http://localhost:5020/$1 [P,L,E=UPGRADE:%{HTTP:Upgrade},E=CONNECTION:%{HTTP:Connection}]
RequestHeader set Upgrade %{UPGRADE}e env=UPGRADE
RequestHeader set Connection %{CONNECTION}e env=CONNECTION
"""


def recipe(port):
    """The recipe before a bridge at `port`."""
    text = RECIPE.replace("localhost:5020", f"localhost:{port}")
    assert text.count(str(port)) == 1
    return "RewriteEngine On\n" + text


def site(port):
    """A whole site before a bridge at `port`: the recipe, and the rest of the application."""
    return (f'{recipe(port)}ProxyPass "/" "http://localhost:{port}/"\n'
            f'ProxyPassReverse "/" "http://localhost:{port}/"\nWSForward On\n')


class Container:
    """A TCP server that greets with its name and sends everything back with the case of letters swapped."""

    def __init__(self, name):
        self.name = name
        container = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                container._open.append(self.request)
                self.request.sendall(container.greeting)
                try:
                    while data := self.request.recv(65536):
                        self.request.sendall(data.swapcase())
                except OSError:
                    pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._open = []
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def greeting(self):
        """The first bytes of each connection."""
        return f"this is {self.name}\n".encode()

    def hang_up(self):
        """Ends all connections from its side."""
        while self._open:
            try:
                self._open.pop().shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already

    def close(self):
        """Its port refuses connections from now on."""
        self._server.shutdown()
        self._server.server_close()


class Bridge:
    """The Flask application in a process of its own; `containers` maps (user, name) to a TCP port."""

    PASSWORD = "let me in"

    def __init__(self, containers, novnc="/usr/share/novnc"):
        self.directory = Path(tempfile.mkdtemp(prefix="wsf-bridge-"))
        self.output = self.directory / "bridge.log"
        self._span = 0
        ready = self.directory / "port"
        command = [sys.executable, HERE / "bridge.py", "--listen", "127.0.0.1:0", "--ready-file", ready,
                   "--novnc", novnc]  # fmt: skip
        for user in sorted({user for user, _ in containers}):
            command += ["--user", f"{user}={self.PASSWORD}"]
        for (user, name), port in containers.items():
            command += ["--container", f"{user}/{name}={port}"]
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                             start_new_session=True)  # fmt: skip

        def listens():
            if self._process.poll() is not None:
                raise RuntimeError(f"the bridge ended:\n{self.text()}")
            return ready.exists()
        wait.until(listens, lambda: f"the bridge listens:\n{self.text()}", 30)
        self.port = int(ready.read_text())

    def text(self):
        """What it logged since `open_span`."""
        return self.output.read_bytes()[self._span:].decode()

    def open_span(self):
        """Forgets what was logged so far."""
        self._span = self.output.stat().st_size

    def messages(self):
        """Its log lines since `open_span`, without the time, and without the access log."""
        lines = re.findall(r"^\d{4}-\S+ \S+ [A-Z]+ (.*)$", self.text(), re.MULTILINE)
        return [line for line in lines if not re.match(r"127\.0\.0\.1 |Listening", line)]

    def wait_for(self, message):
        """Waits until it logged this line."""
        wait.until(lambda: message in self.messages(), lambda: f"{message!r} in\n{self.text()}")

    def wait_closed(self):
        """Waits until every bridge that it ever opened has closed: no line of one comes later."""
        def closed():
            text = self.output.read_text()
            return text.count("starting bidirectional proxy\n") == len(re.findall(r"Bridge to container port \d+ closed\n", text))
        wait.until(closed, lambda: f"all bridges close:\n{self.output.read_text()}")

    def login(self, port, user, tls=None, **more):
        """Logs in by way of `port` (its own, or httpd's) and returns the Cookie header."""
        form = {"user": user, "password": self.PASSWORD, **more}
        body = "&".join(f"{name}={value.replace(' ', '+')}" for name, value in form.items()).encode()
        request = http.request("/login", method="POST", body=body, fields=[
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", len(body)), ("Connection", "close")])  # fmt: skip
        with RawClient(port, tls) as client:
            answer = client.ask(request)
        assert answer.status == 303, answer
        return answer.get("Set-Cookie").split(";")[0]

    def close(self):
        """Ends the process."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)
