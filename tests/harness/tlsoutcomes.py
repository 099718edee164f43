"""What may come of records that a peer of a tunnel sends, and a case: what is sent, and what has to come of it."""

from collections.abc import Callable
from dataclasses import dataclass

#: Descriptions of alerts (RFC 8446 6, RFC 5246 7.2).
CLOSE_NOTIFY, UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW, HANDSHAKE_FAILURE = 0, 10, 20, 22, 40
UNSUPPORTED_CERTIFICATE, ILLEGAL_PARAMETER, UNKNOWN_CA, DECODE_ERROR, PROTOCOL_VERSION, INTERNAL_ERROR = 43, 47, 48, 50, 70, 80
USER_CANCELED, NO_RENEGOTIATION = 90, 100


@dataclass(frozen=True)
class Goes:
    """The tunnel goes on. These records, and no others, come before the echo: type and text of each. `at_once`: before
    anything else is sent."""

    control: tuple = ()
    at_once: bool = False


@dataclass(frozen=True)
class GoesAnsweringOften:
    """The tunnel goes on. Of so many KeyUpdates that are asked for one comes at least (RFC 8446 4.6.3)."""

    most: int


@dataclass(frozen=True)
class GoesAnswering:
    """The tunnel goes on. Handshake messages of these types come before the echo, each in a record."""

    kinds: tuple


@dataclass(frozen=True)
class Fails:
    """A fatal alert comes, and then the end. `why` is what the log has of it; nothing where that is OpenSSL's own text. Of
    several alerts each comes with some version of OpenSSL."""

    alert: int | tuple
    why: str = ""


@dataclass(frozen=True)
class Ends:
    """The end comes, and before it these alerts, level and description of each."""

    why: str
    alerts: tuple = ()


@dataclass(frozen=True)
class Case:
    """`send` gets the client, and sends. If it returns True it has sent FRAME, whose echo has to come where the tunnel goes on;
    a payload is that of a binary frame. `behind` is what is missing of FRAME then, and sent when the answer is there."""

    script: str
    what: str
    send: Callable
    wanted: object
    version: str = "tls1.3"
    cipher: str = "AES128-GCM"
    behind: bytes = b""
    #: Sent by clients alone: a server may send it, or it would mean something else.
    of_clients: bool = False
    #: What OpenSSL makes of it, if it is something else, and why an RFC allows what the native session does.
    openssl: object = None
    because: str = ""

    def __str__(self):
        return f"{self.script}-{self.what}-{self.version}-{self.cipher}".replace(" ", "_")
