"""A client that sends exactly the bytes it is told and shows exactly the bytes it gets."""

import select
import socket
import struct

from .http import Response
from .tlssocket import TlsSocket
from .wait import PATIENCE
from .websocket import Frames

BODILESS = (204, 304)


class RawClient(Frames):
    """One connection to httpd, plain, or TLS by `tls` (an ssl.SSLContext); `host` is its address."""

    #: Clients of the running test: its end closes them.
    living = []

    def __init__(self, port, tls=None, timeout=PATIENCE, receive_buffer=None, host="127.0.0.1"):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.plain = sock
        self.sock = sock
        RawClient.living.append(self)
        if tls:
            self.sock = TlsSocket(sock, tls, server_hostname="localhost")
            self.sock.do_handshake()
        self._buffered = b""
        #: Every byte that came, in order.
        self.seen = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        """Sends all of it."""
        self.sock.sendall(data)
        return self

    def recv(self, most=65536):
        """The next bytes, b"" at the end."""
        if self._buffered:
            data, self._buffered = self._buffered[:most], self._buffered[most:]
            return data
        data = self.sock.recv(most)
        self.seen += data
        return data

    def read_until(self, end):
        """Bytes up to and with `end`; EOFError with what came if the server ends before."""
        data = b""
        while end not in data:
            more = self.recv()
            if not more:
                raise EOFError(f"the server ended after {data!r}")
            data += more
        at = data.index(end) + len(end)
        self._buffered = data[at:] + self._buffered
        return data[:at]

    def read_exactly(self, size):
        """Exactly so many bytes."""
        parts, missing = [], size
        while missing:
            data = self.recv(min(missing, 1 << 20))
            if not data:
                raise EOFError(f"{missing} of {size} bytes missing")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def silent_for(self, seconds):
        """True if neither a byte nor an end comes for so long: an observation, not a wait."""
        return not self._buffered and not select.select([self.plain], [], [], seconds)[0]

    def read_to_end(self):
        """All bytes until the server ends its sending."""
        data = b""
        while more := self.recv():
            data += more
        return data

    def read_head(self):
        """A response head; its body, if any, stays unread."""
        return Response(self.read_until(b"\r\n\r\n"))

    def read_response(self, method="GET"):
        """A whole response, framed as RFC 9112 6.3 says; interim ones are skipped."""
        answer = self.read_head()
        while 100 <= answer.status < 200 and answer.status != 101:
            answer = self.read_head()
        if method == "HEAD" or answer.status in BODILESS or answer.status == 101:
            return answer
        if "chunked" in ",".join(answer.all("Transfer-Encoding")).lower():
            answer.body = self._read_chunks()
        elif answer.get("Content-Length") is not None:
            answer.body = self.read_exactly(int(answer.get("Content-Length")))
        else:
            answer.body = self.read_to_end()
        return answer

    def _read_chunks(self):
        body = b""
        while True:
            size = int(self.read_until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                trailer = self.read_until(b"\r\n")
                while trailer != b"\r\n":
                    trailer = self.read_until(b"\r\n")
                return body
            body += self.read_exactly(size)
            if self.read_exactly(2) != b"\r\n":
                raise AssertionError("a chunk does not end with CRLF")

    def ask(self, data, method="GET"):
        """Sends a request and reads its response."""
        return self.send(data).read_response(method)

    # Ends.

    def end(self):
        """Reads on and says how the server ended: "eof", "close_notify", "truncated" or "reset"."""
        try:
            while self.recv():
                pass
        except ConnectionResetError:
            return "reset"
        if isinstance(self.sock, TlsSocket):
            return "truncated" if self.sock.truncated else "close_notify"
        return "eof"

    def half_close(self):
        """Ends the sending, keeps the reading: FIN, and close_notify before it on TLS."""
        if isinstance(self.sock, TlsSocket):
            self.sock.close_notify()
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        """Closes the socket."""
        self.sock.close()
        if self in RawClient.living:
            RawClient.living.remove(self)

    @classmethod
    def close_all(cls):
        """Closes the clients that a test left open."""
        for client in list(cls.living):
            client.close()
