"""A back end that does what its script says, well or badly, and remembers what it was asked.

A script is a list of steps. A step is bytes (sent as they are) or a callable that gets the
`Connection`; the usual ones are in `steps`. A script runs once for every request head; the
connection is closed after it unless the last step is `steps.keep`.
"""

import errno
import os
import select
import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field

from . import steps, wait
from .http import Request
from .tlssocket import TlsSocket


class Stopped(Exception):
    """The back end is being reset: the script ends here."""


@dataclass
class Connection:
    """One accepted connection, as the steps of a script see it."""

    backend: "Backend"
    sock: socket.socket
    number: int
    buffered: bytes = b""
    received: bytes = b""
    sent: int = 0
    request: Request = None
    #: How the peer ended its sending: "eof", "reset", or None while it has not.
    end: str = None
    #: What ended the script before its last step.
    error: Exception = None
    closed: threading.Event = field(default_factory=threading.Event)

    def recv(self, most=65536):
        """The next bytes, b"" at the end; the kind of end is in `end`."""
        if self.buffered:
            data, self.buffered = self.buffered[:most], self.buffered[most:]
            return data
        try:
            data = self.sock.recv(most)
        except ConnectionResetError:
            data, self.end = b"", "reset"
        except OSError as error:
            # Reset of the back end pulls the socket away.
            if self.backend.stopping(self):
                raise Stopped from error
            raise
        if not data:
            if self.backend.stopping(self):
                raise Stopped
            truncated = getattr(self.sock, "truncated", False)
            self.end = self.end or ("eof without close_notify" if truncated else "eof")
        return data

    def recv_exactly(self, size):
        """Exactly `size` bytes, EOFError if the peer ends before."""
        parts, missing = [], size
        while missing:
            data = self.recv(min(missing, 1 << 20))
            if not data:
                raise EOFError(f"{missing} of {size} bytes missing, the peer ended: {self.end}")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def read_head(self):
        """Reads up to and with the blank line; None if the peer ended before the first byte."""
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.recv()
            if not data:
                return head or None
            head += data
        end = head.index(b"\r\n\r\n") + 4
        self.buffered = head[end:] + self.buffered
        return head[:end]

    def send(self, data):
        """Sends all of it and counts what was taken."""
        view = memoryview(data)
        while view:
            try:
                taken = self.sock.send(view[: 1 << 16])
            except OSError as error:
                if self.backend.stopping(self):
                    raise Stopped from error
                raise
            self.sent += taken
            view = view[taken:]

    def silent_for(self, seconds):
        """True if no byte comes and none is buffered for so long: an observation, not a wait."""
        pending = getattr(self.sock, "pending", lambda: 0)()
        if self.buffered or pending:
            return False
        return not select.select([self.sock], [], [], seconds)[0]

    def half_close(self):
        """Ends the sending, keeps the reading: FIN, and close_notify before it on TLS."""
        self._close_notify()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            # The peer was quicker, by a reset.
            self.end = self.end or "reset"

    def close(self):
        """An orderly end of both directions."""
        self._close_notify()
        self._close()

    def reset(self):
        """An abrupt end: RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def wait_closed(self, seconds=5.0):
        """Waits until this end of it is closed, by the end of the script: where the machine has nothing else
        to do, within so many seconds."""
        wait.until(self.closed.is_set, lambda: f"the connection at {self.backend.name} is over", seconds)

    def _close(self):
        self.sock.close()
        self.closed.set()

    def _close_notify(self):
        if isinstance(self.sock, TlsSocket):
            try:
                self.sock.close_notify()
            except OSError:
                # The peer is gone already.
                pass


class Backend:
    """Listens on a loopback port, or on a unix socket, plain or TLS."""

    #: Every back end that lives: the hooks of the suite reset and check them after each test.
    living = []

    def __init__(self, *, tls=None, unix=None, name="backend", port=0):
        self.name, self.tls, self.path = name, tls, unix
        self._lock = threading.Lock()
        if unix:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(unix))
            os.chmod(unix, 0o777)
            self.port = None
        else:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self.port = self._listener.getsockname()[1]
        self._listener.listen(128)
        self._clear()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        Backend.living.append(self)

    def _clear(self):
        self.script, self.scripts, self.first = steps.WEBSOCKET_OR_PAGE, None, []
        self.requests, self.connections, self.errors = [], [], []
        self._threads, self._stopped = [], set()

    @property
    def authority(self):
        """host:port as a URL takes it."""
        return f"127.0.0.1:{self.port}"

    def url(self, scheme, path="/"):
        """What a proxy directive takes for this back end."""
        if self.path:
            return f"unix:{self.path}|{scheme}://localhost{path}"
        return f"{scheme}://{self.authority}{path}"

    # What a test says.

    def answers(self, *script):
        """Every request is answered by these steps."""
        self.script, self.scripts = list(script), None

    def answers_in_turn(self, *scripts):
        """Request n is answered by script n, later ones by the last."""
        self.scripts = [list(script) for script in scripts]

    def on_connect(self, *script):
        """These steps run right after accept, before TLS and before any request is read."""
        self.first = list(script)

    # What a test asks.

    @property
    def request(self):
        """The last request."""
        return self.requests[-1]

    def wait_requests(self, count=1):
        """Waits until so many requests came, returns them all."""
        wait.until(lambda: len(self.requests) >= count,
                   lambda: f"{count} requests at {self.name}, has {len(self.requests)}")
        return self.requests

    def wait_connections(self, count=1):
        """Waits until so many connections came, returns them all."""
        wait.until(lambda: len(self.connections) >= count,
                   lambda: f"{count} connections at {self.name}, has {len(self.connections)}")
        return self.connections

    # The rest is the server.

    def stopping(self, connection):
        """True once this connection is pulled away by the test's end."""
        return self._closing or connection.number in self._stopped

    def reset(self):
        """Ends all connections and forgets scripts and records."""
        with self._lock:
            connections, threads = list(self.connections), list(self._threads)
            self._stopped = {connection.number for connection in connections}
        for connection in connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in threads:
            thread.join(wait.PATIENCE)
            if thread.is_alive():
                raise RuntimeError(f"{self.name}: a script does not end")
        with self._lock:
            self._clear()

    def close(self):
        """Ends the back end: its port refuses connections from now on."""
        if self._closing:
            return
        self._closing = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self._acceptor.join(wait.PATIENCE)
        self.reset()
        Backend.living.remove(self)

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if not self.path:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                connection = Connection(self, sock, len(self.connections))
                self.connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                # Before reset() can see it, which joins it.
                thread.start()

    def _serve(self, connection):
        try:
            self._run(connection, self.first)
            if self.tls and not connection.closed.is_set():
                connection.sock = TlsSocket(connection.sock, self.tls, server_side=True)
                connection.sock.do_handshake()
            while not connection.closed.is_set() and self._answer(connection):
                pass
        except Stopped:
            pass
        except (ConnectionError, ssl.SSLError, EOFError) as error:
            # The peer's right: what it did is in `end`, and tests that mind look there.
            connection.end = connection.end or "reset"
            connection.error = error
        except Exception as error:
            if not self.stopping(connection):
                self.errors.append(f"{self.name}: {error!r}")
        finally:
            if not connection.closed.is_set():
                connection.close()

    def _answer(self, connection):
        """Reads a head and runs its script; True if another request may follow."""
        head = connection.read_head()
        if head is None:
            return False
        connection.request = Request(head)
        with self._lock:
            turn = len(self.requests)
            self.requests.append(connection.request)
        script = self.script
        if self.scripts:
            script = self.scripts[min(turn, len(self.scripts) - 1)]
        return self._run(connection, script)

    def _run(self, connection, script):
        for step in script:
            if step is steps.keep:
                return True
            if isinstance(step, bytes):
                connection.send(step)
            else:
                step(connection)
            if connection.closed.is_set():
                return False
        return False
