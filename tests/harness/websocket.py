"""RFC 6455 as far as a test needs it: the accept value and frames."""

import base64
import hashlib
import os
import struct
from dataclasses import dataclass

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
#: The key of the example in RFC 6455 1.3 and its accept value.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def accept(key):
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key, both bytes (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


@dataclass(frozen=True)
class Frame:
    """A frame, unmasked (RFC 6455 5.2)."""

    opcode: int
    payload: bytes = b""
    fin: bool = True

    def encode(self, mask):
        """Its bytes; a client masks, a server does not (RFC 6455 5.1)."""
        head = bytes([self.opcode | (0x80 if self.fin else 0)])
        bit, size = (0x80 if mask else 0), len(self.payload)
        if size < 126:
            head += bytes([bit | size])
        elif size < 1 << 16:
            head += bytes([bit | 126]) + struct.pack("!H", size)
        else:
            head += bytes([bit | 127]) + struct.pack("!Q", size)
        if not mask:
            return head + self.payload
        key = os.urandom(4)
        return head + key + _masked(self.payload, key)


def close_frame(code, reason=b""):
    """A Close frame with a code and a reason."""
    return Frame(CLOSE, struct.pack("!H", code) + reason)


def read_frame(read_exactly):
    """Reads one frame by means of a function that returns exactly n bytes."""
    first, second = read_exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", read_exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", read_exactly(8))
    key = read_exactly(4) if second & 0x80 else b""
    payload = read_exactly(size) if size else b""
    return Frame(first & 0x0F, _masked(payload, key) if key else payload, bool(first & 0x80))


class Frames:
    """The frames of a client, by its `send` and `read_exactly`."""

    def send_frame(self, frame):
        """Sends a frame, masked as a client must."""
        return self.send(frame.encode(mask=True))

    def read_frame(self):
        """Reads a frame."""
        return read_frame(self.read_exactly)

    def echoes(self, payload=b"hello", opcode=BINARY):
        """Sends a message and asserts that the same comes back."""
        self.send_frame(Frame(opcode, payload))
        got = self.read_frame()
        assert (got.opcode, got.payload) == (opcode, payload)
        return self


def _masked(data, key):
    repeated = int.from_bytes((key * (len(data) // 4 + 1))[: len(data)], "big")
    return (int.from_bytes(data, "big") ^ repeated).to_bytes(len(data), "big")
