"""What cases send: functions that get the peer, or make such a one. See harness.tlsoutcomes.Case."""

from . import websocket
from .tlsoutcomes import CLOSE_NOTIFY
from .tlsrecords import ALERT, CLIENT_HELLO, DATA, HANDSHAKE, HELLO_REQUEST, KEY_UPDATE, MAX_TEXT, WARNING, message

#: Bytes.
TAG = 16
#: Both ask for nothing and for an answer (RFC 8446 4.6.3).
UPDATE, ASKING = message(KEY_UPDATE, b"\0"), message(KEY_UPDATE, b"\1")
PAYLOAD = b"GET / HTTP/1.0"
FRAME = websocket.Frame(websocket.TEXT, PAYLOAD).encode(mask=True)
#: A frame that fills a record: behind 8 bytes of head and mask.
FULL = websocket.Frame(websocket.BINARY, b"A" * (MAX_TEXT - 8)).encode(mask=True)


def sends(*parts, **options):
    """Sends records of (type, text), all at once."""
    def send(talk):
        talk.send_raw(*(talk.seal(*part, **options) for part in parts))
    return send


def plain(kind, text, **options):
    """Sends a record that is not protected."""
    def send(talk):
        talk.send_raw(talk.plain(kind, text, **options))
    return send


def pieces(*sizes, kind=DATA, text=b"", **options):
    """Sends FRAME in records of these sizes and one for what is left, with another record before each."""
    def send(talk):
        rest, records = FRAME, []
        for size in (*sizes, len(FRAME)):
            records += [talk.seal(kind, text, **options), talk.seal(DATA, rest[:size])]
            rest = rest[size:]
        talk.send_raw(*records)
        return True
    return send


def frames(frame, payload, **options):
    """Sends a frame in one record."""
    def send(talk):
        talk.send_raw(talk.seal(DATA, frame, **options))
        return payload
    return send


def changed(at, bits, text=FRAME, kind=DATA):
    """Sends a record with some bits turned round at a place."""
    def send(talk):
        record = bytearray(talk.seal(kind, text))
        record[at] ^= bits
        talk.send_raw(record)
    return send


def updates(*messages, then=FRAME):
    """Sends these KeyUpdates, the keys changing behind each, and a frame."""
    def send(talk):
        records = []
        for one in messages:
            records.append(talk.seal(HANDSHAKE, one))
            talk.update_key()
        talk.send_raw(*records, talk.seal(DATA, then))
        return True
    return send


def two_updates_with_the_next_key(talk):
    talk.update_key()
    talk.send_raw(talk.seal(HANDSHAKE, UPDATE + ASKING), talk.seal(DATA, FRAME))


def second_part_with_the_next_key(talk):
    first = talk.seal(HANDSHAKE, UPDATE[:1])
    talk.update_key()
    talk.send_raw(first, talk.seal(HANDSHAKE, UPDATE[1:] + ASKING), talk.seal(DATA, FRAME))


def update_within_data(talk):
    talk.send_raw(talk.seal(DATA, FRAME[:3]), talk.seal(HANDSHAKE, ASKING))
    talk.update_key()
    return True


def update_in_parts(*sizes):
    def send(talk):
        rest, records = ASKING, []
        for size in (*sizes, len(ASKING)):
            records.append(talk.seal(HANDSHAKE, rest[:size]))
            rest = rest[size:]
        talk.update_key()
        talk.send_raw(*records, talk.seal(DATA, FRAME))
        return True
    return send


def padded(text, whole):
    """How much padding makes so much of a text and its type."""
    return whole - len(text) - 1


def empty_ones(count, then=FRAME):
    def send(talk):
        talk.send_raw(*(talk.seal(DATA) for _ in range(count)), talk.seal(DATA, then))
        return True
    return send


def longest_ciphertext(more, bits):
    """A record whose header says 2^14 + 256 and so many, with a tag that is right or not."""
    def send(talk):
        record = bytearray(talk.seal(DATA, b"A" * (MAX_TEXT + 256 - TAG - 1 + more)))
        record[-1] ^= bits
        talk.send_raw(record)
    return send


def padded_update(whole):
    def send(talk):
        record = talk.seal(HANDSHAKE, ASKING, padding=padded(ASKING, whole))
        talk.update_key()
        talk.send_raw(record, talk.seal(DATA, FRAME))
        return True
    return send


def alerts(*pairs):
    return sends(*((ALERT, bytes(pair)) for pair in pairs))


def alerts_then_data(*pairs):
    def send(talk):
        talk.send_raw(*(talk.seal(ALERT, bytes(pair)) for pair in pairs), talk.seal(DATA, FRAME))
        return True
    return send


def close_notify(talk):
    # What comes behind it is ignored (RFC 8446 6.1).
    talk.send_raw(talk.seal(ALERT, bytes([WARNING, CLOSE_NOTIFY])), talk.seal(DATA, FRAME))


def hello(talk, secure=True):
    """A ClientHello within the session: that of the handshake, with renegotiation_info as it has to be or without."""
    own = b"\3\3" + bytes(32) + b"\0" + b"\0\2\xc0\x2b" + b"\1\0"
    finished = b"".join([b"\x0c", bytes(12)]) if secure else b""
    extension = b"\xff\x01" + len(finished).to_bytes(2, "big") + finished if secure else b""
    groups = b"\0\x0a\0\4\0\2\0\x17" + b"\0\x0d\0\4\0\2\4\3"
    body = extension + groups
    return message(CLIENT_HELLO, own + len(body).to_bytes(2, "big") + body)


def renegotiates(secure, at):
    """Sends FRAME with a ClientHello in it."""
    def send(talk):
        talk.send_raw(talk.seal(DATA, FRAME[:at]) if at else b"", talk.seal(HANDSHAKE, hello(talk, secure)),
                      talk.seal(DATA, FRAME[at:]))  # fmt: skip
        return True
    return send


def message_within_data(talk):
    first, second = hello(talk)[:40], hello(talk)[40:]
    talk.send_raw(talk.seal(HANDSHAKE, first), talk.seal(DATA, FRAME), talk.seal(HANDSHAKE, second))
    return True


def short(size):
    """A record that is shorter than anything protected."""
    return plain(DATA, b"\xa1" * size)


def other_version(version):
    def send(talk):
        record = bytearray(talk.seal(DATA, FRAME))
        record[1:3] = version
        talk.send_raw(record)
    return send


def hello_request_within_data(talk):
    talk.send_raw(talk.seal(DATA, FRAME[:5]), talk.seal(HANDSHAKE, message(HELLO_REQUEST)), talk.seal(DATA, FRAME[5:]))
    return True


def first_byte_alone(talk):
    talk.send_raw(talk.seal(DATA, FRAME[:1]), talk.seal(DATA, FRAME[1:]))
    return True
