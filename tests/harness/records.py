"""TLS 1.3 records of one's own making (RFC 8446 5.2), for messages that no TLS library would send."""

import ctypes
import ctypes.util
import hashlib
import hmac
import struct

HANDSHAKE, DATA = 22, 23
#: KeyUpdate, update_not_requested (RFC 8446 4.6.3).
KEY_UPDATE = bytes([24, 0, 0, 1, 0])

_crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
for _name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
    getattr(_crypto, _name).restype = ctypes.c_void_p
_GET_TAG = 0x10


class Records:
    """What this end of a TLS 1.3 session sends from now on: `tls` is its TlsSocket, with which
    nothing was sent yet and nothing must be sent any more; `secrets` its context's keylog_filename."""

    def __init__(self, tls, secrets, label="CLIENT_TRAFFIC_SECRET_0"):
        assert tls._tls.cipher()[0] == "TLS_AES_256_GCM_SHA384", tls._tls.cipher()
        found = [line.split()[2] for line in secrets.read_text().splitlines() if line.startswith(label + " ")]
        self.sock = tls.sock
        self._use(bytes.fromhex(found[-1]))

    def _use(self, secret):
        self._secret, self._key, self._iv = secret, _expand(secret, b"key", 32), _expand(secret, b"iv", 12)
        self._number = 0

    def update_key(self):
        """What follows has the next key, as it must behind a KeyUpdate."""
        self._use(_expand(self._secret, b"traffic upd", 48))

    def record(self, content, kind=DATA):
        """A record with this content."""
        inner = content + bytes([kind])
        head = bytes([DATA, 3, 3]) + struct.pack("!H", len(inner) + 16)
        nonce = (int.from_bytes(self._iv, "big") ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + _seal(self._key, nonce, head, inner)

    def send(self, content, kind=DATA):
        """Sends it in one record."""
        self.sock.sendall(self.record(content, kind))


def _expand(secret, label, size):
    """HKDF-Expand-Label without context; one block of SHA-384 is enough."""
    full = b"tls13 " + label
    info = struct.pack("!HB", size, len(full)) + full + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha384).digest()[:size]


def _seal(key, nonce, aad, text):
    context = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new())
    size, out, tag = ctypes.c_int(), ctypes.create_string_buffer(len(text) + 16), ctypes.create_string_buffer(16)
    cipher = ctypes.c_void_p(_crypto.EVP_aes_256_gcm())
    steps = [
        lambda: _crypto.EVP_EncryptInit_ex(context, cipher, None, key, nonce),
        lambda: _crypto.EVP_EncryptUpdate(context, None, ctypes.byref(size), aad, len(aad)),
        lambda: _crypto.EVP_EncryptUpdate(context, out, ctypes.byref(size), text, len(text)),
        lambda: _crypto.EVP_EncryptFinal_ex(context, None, ctypes.byref(ctypes.c_int())),
        lambda: _crypto.EVP_CIPHER_CTX_ctrl(context, _GET_TAG, 16, tag),
    ]
    try:
        assert all(step() == 1 for step in steps)
    finally:
        _crypto.EVP_CIPHER_CTX_free(context)
    return out.raw[: len(text)] + tag.raw
