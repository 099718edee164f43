"""A TLS client, or server, of tlslite-ng's that sends any record, right or wrong, and shows each record that comes.

tlslite-ng is TLS in Python, by others than OpenSSL's. Its handshake is run as it is; behind that its record layer protects
what the test gives it, of whatever type and length, and opens what the peer sends.
"""

import socket
from concurrent.futures import ThreadPoolExecutor

from tlslite.errors import TLSAbruptCloseError
from tlslite.handshakesettings import HandshakeSettings
from tlslite.messages import Message
from tlslite.tlsconnection import TLSConnection
from tlslite.utils.keyfactory import parsePEMKey
from tlslite.x509certchain import X509CertChain

from . import wait, websocket
from .http import Request, Response

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, DATA, HEARTBEAT = range(20, 25)
HELLO_REQUEST, CLIENT_HELLO, SESSION_TICKET, CERTIFICATE, FINISHED, KEY_UPDATE = 0, 1, 4, 11, 20, 24
WARNING, FATAL = 1, 2
MAX_TEXT = 1 << 14
#: What the tests call the versions and the ciphers, and tlslite-ng does.
VERSIONS = {"tls1.2": (3, 3), "tls1.3": (3, 4)}
CIPHERS = {"AES128-GCM": "aes128gcm", "AES256-GCM": "aes256gcm", "CHACHA20-POLY1305": "chacha20-poly1305"}


def message(kind, body=b""):
    """A handshake message (RFC 8446 4)."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def settings(version, cipher):
    """A handshake with nothing but these."""
    wanted = HandshakeSettings()
    wanted.minVersion = wanted.maxVersion = VERSIONS[version]
    wanted.cipherNames = [CIPHERS[cipher]]
    wanted.eccCurves = wanted.keyShares = ["secp256r1"]
    wanted.keyExchangeNames = ["ecdhe_ecdsa"]
    return wanted


class _Tap:
    """A socket that keeps what was received, and what is sent too while it is held."""

    def __init__(self, sock):
        self.sock = sock
        self.received = bytearray()
        self.held = None

    def recv(self, most):
        data = self.sock.recv(most)
        self.received += data
        return data

    def send(self, data):
        if self.held is None:
            return self.sock.send(data)
        self.held += data
        return len(data)

    def sendall(self, data):
        if self.send(data) < len(data):
            raise BlockingIOError("the socket took a part")

    def __getattr__(self, name):
        return getattr(self.sock, name)


class RecordPeer(websocket.Frames):
    """One connection. What is sent and read are WebSocket's bytes, or records of the test's own making."""

    def __init__(self, sock):
        self.sock = sock
        self._tap = _Tap(sock)
        self.tls = TLSConnection(self._tap)
        self._layer = self.tls._recordLayer
        self._data = b""
        #: Records that were no data, in the order in which they came: type and text. Tickets are left out.
        self.control = []
        #: "eof" or "reset", once the peer has ended.
        self.ended = None

    # What is sent.

    def seal(self, kind, text=b"", padding=0):
        """A protected record, which takes the next number. Its header has the type where the version says so."""
        self._layer.padding_cb = (lambda *_: padding) if padding else None
        self._tap.held = bytearray()
        for _ in self._layer.sendRecord(Message(kind, bytearray(text))):
            pass
        record, self._tap.held = bytes(self._tap.held), None
        return record

    @staticmethod
    def plain(kind, text=b"", version=(3, 3)):
        """A record that is not protected."""
        return bytes([kind, *version]) + len(text).to_bytes(2, "big") + text

    def update_key(self):
        """What is sealed from here on has the next key (RFC 8446 7.2)."""
        self._secrets(self._layer.calcTLS1_3KeyUpdate_reciever)

    def _update_reading_key(self):
        self._secrets(self._layer.calcTLS1_3KeyUpdate_sender)

    def _secrets(self, update):
        session = self.tls.session
        found = update(session.cipherSuite, session.cl_app_secret, session.sr_app_secret)
        session.cl_app_secret, session.sr_app_secret = found

    def send_raw(self, *records):
        """These bytes, at once."""
        self.sock.sendall(b"".join(records))
        return self

    def send(self, data):
        """As data, in records that are as long as they may be."""
        parts = [data[at : at + MAX_TEXT] for at in range(0, len(data), MAX_TEXT)]
        return self.send_raw(*(self.seal(DATA, part) for part in parts))

    # What comes.

    def receive(self):
        """The next record, its type and its text; None at the end."""
        if self.ended:
            return None
        try:
            header, parser = next(found for found in self._layer.recvRecord() if found not in (0, 1))
        except (TLSAbruptCloseError, ConnectionResetError) as error:
            self.ended = "reset" if isinstance(error, ConnectionResetError) else "eof"
            return None
        kind, text = header.type, bytes(parser.bytes)
        if kind == HANDSHAKE and text[:1] == bytes([KEY_UPDATE]):
            self._update_reading_key()
        return kind, text

    def recv(self):
        """The next bytes of data, b"" at the end; what else comes is put into `control`."""
        while found := self.receive():
            kind, text = found
            if kind == DATA:
                return text
            if text[:1] != bytes([SESSION_TICKET]) or kind != HANDSHAKE:
                self.control.append(found)
        return b""

    def read_exactly(self, size):
        """Exactly `size` bytes of data."""
        while len(self._data) < size:
            more = self.recv()
            if not more:
                raise EOFError(f"{size} bytes wanted, there are {self._data!r} and {self.control}; {self.ended}")
            self._data += more
        data, self._data = self._data[:size], self._data[size:]
        return data

    def ask(self, request):
        """Sends a request and reads the head of its response."""
        return self.send(request).read_head()

    def read_head(self, kind=Response):
        """A head, of a response or a request."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read_exactly(1)
        return kind(head)

    def to_the_end(self):
        """What came until the end: all records that are no tickets."""
        assert not self._data, self._data
        while data := self.recv():
            self.control.append((DATA, data))
        return self.control

    def headers(self):
        """Type, version and body of each record that came, the protected ones as they were sent."""
        seen, found = bytes(self._tap.received), []
        while seen:
            size = 5 + int.from_bytes(seen[3:5], "big")
            assert len(seen) >= size, seen
            found.append((seen[0], seen[1:3], seen[5:size]))
            seen = seen[size:]
        return found

    def close(self):
        """Without a word of TLS."""
        self.sock.close()


def connect(port, version, cipher):
    """A client, behind its handshake."""
    talk = RecordPeer(socket.create_connection(("127.0.0.1", port), wait.PATIENCE))
    try:
        talk.tls.handshakeClientCert(settings=settings(version, cipher))
    except BaseException:
        talk.close()
        raise
    return talk


class RecordOrigin:
    """A TLS back end that gives the test its end of each connection, once the upgrade is answered."""

    def __init__(self, certificate):
        self._chain = X509CertChain()
        self._chain.parsePemList(certificate.cert.read_text())
        self._key = parsePEMKey(certificate.key.read_text(), private=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(wait.PATIENCE)
        self.url = f"https://127.0.0.1:{self._listening.getsockname()[1]}/"
        self._pool = ThreadPoolExecutor(1)

    def serve(self, version, cipher):
        """Serves the next connection; its RecordPeer will be the result."""
        return self._pool.submit(self._serve, version, cipher)

    def _serve(self, version, cipher):
        sock, _ = self._listening.accept()
        sock.settimeout(wait.PATIENCE)
        talk = RecordPeer(sock)
        talk.tls.handshakeServer(certChain=self._chain, privateKey=self._key, settings=settings(version, cipher))
        key = talk.read_head(Request).get("Sec-WebSocket-Key").encode()
        talk.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  b"Sec-WebSocket-Accept: " + websocket.accept(key) + b"\r\n\r\n")  # fmt: skip
        return talk

    def close(self):
        self._listening.close()
        self._pool.shutdown()
