"""Small WebSocket frames out of a stream, for both ends of the fleet's tunnels."""

from harness.websocket import Frame


def take(data):
    """The frames (opcode, payload) that are complete; takes them out of the bytearray."""
    found = []
    while len(data) >= 2:
        size, masked = data[1] & 0x7F, data[1] >> 7
        assert size < 126, "no frame here is so long"
        begin = 2 + 4 * masked
        if len(data) < begin + size:
            break
        payload = bytes(data[begin:begin + size])
        if masked:
            key = bytes(data[2:6])
            payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
        found.append((data[0] & 0x0F, payload))
        del data[:begin + size]
    return found


def frame(opcode, payload, mask):
    """The bytes of a frame."""
    return Frame(opcode, payload).encode(mask=mask)
