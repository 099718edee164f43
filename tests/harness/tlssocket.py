"""TLS over a socket, by memory BIOs: for what ssl.SSLSocket cannot do.

It sends close_notify without reading a byte in the same breath, lets one thread read while another
writes, and survives a peer that ends without close_notify, which is then seen in `truncated`.
"""

import select
import ssl
import threading

RECORD = 16384


class TlsSocket:
    """A connected socket with TLS on it; the names of the methods are those of a socket."""

    def __init__(self, sock, context, *, server_side=False, server_hostname=None):
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side, server_hostname)
        self._state, self._writing = threading.Lock(), threading.Lock()
        self._unsent = bytearray()
        #: True once the peer ended its sending without close_notify.
        self.truncated = False

    def do_handshake(self):
        """Completes the handshake or raises."""
        while not self._try(self._tls.do_handshake, done=True):
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionResetError("the peer ended within the TLS handshake")
            with self._state:
                self._in.write(data)

    def version(self):
        """The TLS version, as ssl.SSLSocket says it."""
        return self._tls.version()

    def pending(self):
        """Bytes that were read from the socket and not yet returned."""
        return self._tls.pending() + self._in.pending

    def recv(self, most):
        """The next bytes; b"" at the end, with or without close_notify."""
        while True:
            try:
                # A peer that takes nothing until it is read must not keep this from reading.
                data = self._try(lambda: self._tls.read(most), wait=False)
            except ssl.SSLZeroReturnError:
                # What the ssl module says of close_notify once ours was sent.
                return b""
            if data is not None:
                return data
            more = self.sock.recv(65536)
            if not more:
                self.truncated = True
                return b""
            with self._state:
                self._in.write(more)

    def send(self, data):
        """Sends at most one record and says how many bytes of `data` that were.

        A timeout keeps what did not go out; the next call sends it first.
        """
        self._flush()
        part = bytes(data[:RECORD])
        with self._state:
            self._tls.write(part)
        self._flush()
        return len(part)

    def sendall(self, data):
        """Sends all of it."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def close_notify(self):
        """Ends the sending, keeps the reading (RFC 8446 6.1)."""
        self._try(self._tls.unwrap)

    def _try(self, action, done=None, wait=True):
        """Does it and sends what comes of it; None if more must be read first."""
        try:
            with self._state:
                result = action()
            return done if done is not None else result
        except ssl.SSLWantReadError:
            return None
        finally:
            self._flush(wait)

    def _flush(self, wait=True):
        with self._state:
            self._unsent += self._out.read()
        # Whoever writes at the moment sends this too.
        if not self._unsent or not self._writing.acquire(blocking=wait):
            return
        try:
            while self._unsent and (wait or select.select([], [self.sock], [], 0)[1]):
                sent = self.sock.send(self._unsent[: 1 << 18])
                with self._state:
                    del self._unsent[:sent]
        finally:
            self._writing.release()

    def __getattr__(self, name):
        # settimeout, setsockopt, shutdown, fileno, close and the like are those of the socket.
        return getattr(self.sock, name)
