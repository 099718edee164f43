"""Cases of records, KeyUpdates and alerts in an open session of TLS, each with what has to come of it.

Each is named after the script of tlsfuzzer that it stands for, without `test-`; OWN has none.
"""

from .tlsoutcomes import (
    BAD_RECORD_MAC,
    CLOSE_NOTIFY,
    DECODE_ERROR,
    HANDSHAKE_FAILURE,
    ILLEGAL_PARAMETER,
    INTERNAL_ERROR,
    NO_RENEGOTIATION,
    PROTOCOL_VERSION,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
    UNKNOWN_CA,
    UNSUPPORTED_CERTIFICATE,
    USER_CANCELED,
    Case,
    Ends,
    Fails,
    Goes,
    GoesAnswering,
    GoesAnsweringOften,
)
from .tlsrecords import (
    ALERT,
    CERTIFICATE,
    CHANGE_CIPHER_SPEC,
    CIPHERS,
    CLIENT_HELLO,
    DATA,
    FATAL,
    FINISHED,
    HANDSHAKE,
    HEARTBEAT,
    HELLO_REQUEST,
    KEY_UPDATE,
    MAX_TEXT,
    SESSION_TICKET,
    VERSIONS,
    WARNING,
    message,
)
from .tlssends import (
    ASKING,
    FRAME,
    FULL,
    TAG,
    UPDATE,
    alerts,
    alerts_then_data,
    changed,
    close_notify,
    empty_ones,
    first_byte_alone,
    frames,
    hello_request_within_data,
    longest_ciphertext,
    message_within_data,
    other_version,
    padded,
    padded_update,
    pieces,
    plain,
    renegotiates,
    second_part_with_the_next_key,
    sends,
    short,
    two_updates_with_the_next_key,
    update_in_parts,
    update_within_data,
    updates,
)

OWN = "own"
#: One of each kind.
TWO_CIPHERS = ["AES128-GCM", "CHACHA20-POLY1305"]
ANSWERED = Goes(((HANDSHAKE, UPDATE),))
REFUSED = Goes(((ALERT, bytes([WARNING, NO_RENEGOTIATION])),))
NO_DECRYPTION = Fails(BAD_RECORD_MAC, "TLS record that does not decrypt")
TOO_LONG = Fails(RECORD_OVERFLOW, "TLS record too long")
NO_MESSAGE = Fails(UNEXPECTED_MESSAGE, "unexpected TLS handshake message")
NO_TYPE = Fails(UNEXPECTED_MESSAGE, "TLS record without a content type")
WRONG_TYPE = Fails(UNEXPECTED_MESSAGE, "unexpected type of TLS record")
NO_CCS = Fails(UNEXPECTED_MESSAGE, "TLS ChangeCipherSpec after the handshake")
INTERRUPTED = Fails(UNEXPECTED_MESSAGE, "other TLS record within a handshake message")
EMPTY = Fails(UNEXPECTED_MESSAGE, "empty TLS record of a type that must not be empty")
MESSAGE_LENGTH = Fails(DECODE_ERROR, "TLS handshake message of a wrong length")
ALERT_LENGTH = Fails(DECODE_ERROR, "TLS alert of a wrong length")

TOO_LONG_FOR_OPENSSL = "a message that is longer than OpenSSL has room for is refused before it is read; RFC 8446 6 has decode_error"
KEY_UPDATES = [
    Case("tls13-keyupdate", "update_requested", updates(ASKING), ANSWERED),
    Case("tls13-keyupdate", "update_not_requested", updates(UPDATE), Goes()),
    Case("tls13-keyupdate", "empty", sends((HANDSHAKE, message(KEY_UPDATE)), (DATA, FRAME)), MESSAGE_LENGTH),
    Case("tls13-keyupdate", "large", sends((HANDSHAKE, message(KEY_UPDATE, b"\1\0")), (DATA, FRAME)), MESSAGE_LENGTH,
         openssl=Fails(ILLEGAL_PARAMETER), because=TOO_LONG_FOR_OPENSSL),
    Case("tls13-keyupdate", "two in one record", sends((HANDSHAKE, UPDATE + ASKING), (DATA, FRAME)),
         Fails(UNEXPECTED_MESSAGE, "TLS handshake message behind a KeyUpdate in one record")),
    Case("tls13-keyupdate", "two in one record with the next key", two_updates_with_the_next_key, NO_DECRYPTION),
    Case("tls13-keyupdate", "second part with the next key", second_part_with_the_next_key, NO_DECRYPTION),
    *(Case("tls13-keyupdate", f"value {value}", sends((HANDSHAKE, message(KEY_UPDATE, bytes([value]))), (DATA, FRAME)),
           Fails(ILLEGAL_PARAMETER, "TLS KeyUpdate with an unknown value")) for value in (2, 128, 255)),
    Case("tls13-keyupdate", "data before and behind", update_within_data, Goes(ANSWERED.control, at_once=True), behind=FRAME[3:],
         openssl=ANSWERED, because="RFC 8446 4.6.3: the answer comes before data, if not earlier"),
    Case("tls13-keyupdate", "32 that ask", updates(*[ASKING] * 32), GoesAnsweringOften(32)),
    Case("tls13-keyupdate", "in parts", update_in_parts(2), ANSWERED),
    Case("tls13-keyupdate", "byte by byte", update_in_parts(1, 1, 1, 1), ANSWERED),
    *(Case("tls13-keyupdate", f"data behind {size} bytes",
           sends((HANDSHAKE, ASKING[:size]), (DATA, FRAME), (HANDSHAKE, ASKING[size:])), INTERRUPTED) for size in (1, 2, 3, 4)),
    Case("tls13-keyupdate", "alert behind 1 byte", sends((HANDSHAKE, ASKING[:1]), (ALERT, bytes([WARNING, USER_CANCELED]))),
         INTERRUPTED),
    Case("tls13-keyupdate", "of TLS 1.2", sends((HANDSHAKE, UPDATE)), NO_MESSAGE, "tls1.2"),
]  # fmt: skip

WITH_PADDING = "RFC 8446 5.4: text and padding have 2^14 + 1 bytes at most, of which OpenSSL takes some more"
OF_TLS13 = [
    Case("tls13-record-padding", "of a fixed length", frames(FRAME, True, padding=61), Goes()),
    Case("tls13-record-padding", "of the greatest length",
         frames(FRAME, True, padding=padded(FRAME, MAX_TEXT + 1)), Goes()),
    *(Case("tls13-record-layer-limits", "longest text", frames(FULL, b"A" * (MAX_TEXT - 8)), Goes(), cipher=cipher)
      for cipher in TWO_CIPHERS),
    *(Case("tls13-record-layer-limits", "text too long", sends((DATA, b"A" * (MAX_TEXT + 1))), TOO_LONG, cipher=cipher)
      for cipher in TWO_CIPHERS),
    Case("tls13-record-layer-limits", "too long with its padding",
         frames(FRAME, True, padding=padded(FRAME, MAX_TEXT + 2)), TOO_LONG, openssl=Goes(), because=WITH_PADDING),
    Case("tls13-record-layer-limits", "longest message with its padding", padded_update(MAX_TEXT + 1), ANSWERED),
    Case("tls13-record-layer-limits", "message too long with its padding", padded_update(MAX_TEXT + 2), TOO_LONG,
         openssl=ANSWERED, because=WITH_PADDING),
    Case("tls13-record-layer-limits", "longest ciphertext", longest_ciphertext(0, 0), TOO_LONG),
    Case("tls13-record-layer-limits", "longest ciphertext and wrong tag", longest_ciphertext(0, 1), NO_DECRYPTION),
    Case("tls13-record-layer-limits", "ciphertext too long", longest_ciphertext(1, 0), TOO_LONG),
    Case("tls13-record-layer-limits", "ciphertext too long and wrong tag", longest_ciphertext(1, 0x80), TOO_LONG),
    Case("tls13-zero-content-type", "empty", sends((0, b"")), NO_TYPE),
    Case("tls13-zero-content-type", "padding", sends((0, bytes(42))), NO_TYPE),
    Case("tls13-zero-content-type", "within data", sends((DATA, FRAME[:5]), (0, b"")), NO_TYPE),
    Case("tls13-zero-content-type", "padding within data", sends((DATA, FRAME[:5]), (0, bytes(42))), NO_TYPE),
    Case("tls13-zero-length-data", "not padded", pieces(5, 7), Goes()),
    Case("tls13-zero-length-data", "padded", pieces(5, 7, padding=30), Goes()),
    Case("tls13-zero-length-data", "padded much", pieces(5, padding=MAX_TEXT), Goes()),
    Case("tls13-zero-length-data", "32 of them", empty_ones(32), Goes()),
    Case("tls13-zero-length-data", "33 of them", empty_ones(33), Fails(UNEXPECTED_MESSAGE, "too many empty TLS records")),
    Case("tls13-finished-plaintext", "message", plain(HANDSHAKE, message(FINISHED, bytes(32))), WRONG_TYPE),
    Case("tls13-finished-plaintext", "KeyUpdate", plain(HANDSHAKE, ASKING), WRONG_TYPE),
    Case("tls13-finished-plaintext", "data", plain(DATA, FRAME), NO_DECRYPTION),
    Case(OWN, "a second one", sends((HANDSHAKE, message(FINISHED, bytes(32)))), NO_MESSAGE),
    # OpenSSL 3.5 ignores it as a client.
    Case("tls13-ccs", "behind Finished", plain(CHANGE_CIPHER_SPEC, b"\1"), NO_CCS, of_clients=True),
    Case("tls13-ccs", "two bytes", plain(CHANGE_CIPHER_SPEC, b"\1\1"), NO_CCS),
    # The type is the last byte that is not 0, and tlslite-ng protects no record of this type.
    Case("tls13-ccs", "protected", sends((0, bytes([1, CHANGE_CIPHER_SPEC]))), WRONG_TYPE),
    Case("tls13-multiple-ccs-messages", "in one record", plain(CHANGE_CIPHER_SPEC, b"\1" * 64), NO_CCS),
    Case("tls13-post-handshake-auth", "Certificate that nobody asked for",
         sends((HANDSHAKE, message(CERTIFICATE, bytes(4)))), NO_MESSAGE),
    Case("tls13-post-handshake-auth", "CertificateVerify that nobody asked for",
         sends((HANDSHAKE, message(15, bytes(8)))), NO_MESSAGE),
    Case(OWN, "one of the client", sends((HANDSHAKE, message(SESSION_TICKET, bytes(13)))), NO_MESSAGE, of_clients=True),
    Case(OWN, "EndOfEarlyData", sends((HANDSHAKE, message(5))), NO_MESSAGE),
    Case(OWN, "ClientHello", sends((HANDSHAKE, message(CLIENT_HELLO, bytes(80)))), NO_MESSAGE),
    Case(OWN, "HelloRequest", sends((HANDSHAKE, message(HELLO_REQUEST))), NO_MESSAGE),
    Case(OWN, "message of type 99", sends((HANDSHAKE, message(99))), NO_MESSAGE),
    Case(OWN, "empty handshake record", sends((HANDSHAKE, b"")), EMPTY),
    Case(OWN, "padded empty handshake record", sends((HANDSHAKE, b""), padding=30), EMPTY),
    *(Case("invalid-content-type", f"{kind}", sends((kind, b"hello server!\n")), WRONG_TYPE)
      for kind in (19, HEARTBEAT, 255)),
    *(Case("invalid-content-type", f"{kind} not protected", plain(kind, b"hello server!\n"), WRONG_TYPE)
      for kind in (0, HEARTBEAT, 255)),
]  # fmt: skip

CLOSED = Ends("closed", ((WARNING, CLOSE_NOTIFY),))
TOO_MANY = Fails(UNEXPECTED_MESSAGE, "too many TLS warnings")
OF_ALERTS = [
    *(Case("conversation", "close_notify", close_notify, CLOSED, version, of_clients=True) for version in VERSIONS),
    Case("tls13-unencrypted-alert", "not protected", plain(ALERT, bytes([FATAL, UNKNOWN_CA])), WRONG_TYPE),
    Case("tls13-unencrypted-alert", "close_notify not protected", plain(ALERT, bytes([WARNING, CLOSE_NOTIFY])), WRONG_TYPE),
    Case("tls13-unencrypted-alert", "protected", alerts((FATAL, UNKNOWN_CA)), Ends("the peer sent the TLS alert unknown_ca")),
    Case("tls13-unencrypted-alert", "as a warning", alerts((WARNING, UNKNOWN_CA)),
         Ends("the peer sent the TLS alert unknown_ca")),
    Case("tls13-unencrypted-alert", "unknown", alerts((FATAL, 200)), Ends("the peer sent the TLS alert 200")),
    *(Case("tls13-empty-alert", f"padded with {padding}", sends((ALERT, b""), padding=padding), EMPTY) for padding in (0, 2, 5, 30)),
    *(Case("tls13-empty-alert", f"{len(text)} bytes", sends((ALERT, text)), ALERT_LENGTH, version,
           openssl=Fails(UNEXPECTED_MESSAGE), because=f"{rfc}: decode_error is for what has a wrong length")
      for version, rfc in (("tls1.2", "RFC 5246 7.2.2"), ("tls1.3", "RFC 8446 6"))
      for text in (bytes([FATAL]), bytes([FATAL, UNKNOWN_CA, 0]), bytes([WARNING, USER_CANCELED] * 2))),
    Case("ssl-death-alert", "4 times user_canceled", alerts_then_data(*[(WARNING, USER_CANCELED)] * 4), Goes()),
    Case("ssl-death-alert", "5 times user_canceled", alerts_then_data(*[(WARNING, USER_CANCELED)] * 5), TOO_MANY),
    Case("ssl-death-alert", "4 warnings", alerts_then_data(*[(WARNING, UNSUPPORTED_CERTIFICATE)] * 4), Goes(), "tls1.2"),
    Case("ssl-death-alert", "5 warnings", alerts_then_data(*[(WARNING, UNSUPPORTED_CERTIFICATE)] * 5), TOO_MANY, "tls1.2"),
    Case(OWN, "unknown_ca", alerts((FATAL, UNKNOWN_CA)), Ends("the peer sent the TLS alert unknown_ca"), "tls1.2"),
    Case(OWN, "alert of an unknown level", alerts((3, UNKNOWN_CA)),
         Fails(ILLEGAL_PARAMETER, "TLS alert of an unknown level"), "tls1.2"),
    Case("record-layer-fragmentation", "alert in two records", sends((ALERT, b"\1"), (ALERT, b"\0")), ALERT_LENGTH, "tls1.2",
         openssl=Fails(UNEXPECTED_MESSAGE), because="RFC 5246 7.2.2: decode_error is for what has a wrong length"),
    Case(OWN, "empty alert", sends((ALERT, b"")), EMPTY, "tls1.2"),
    Case(OWN, "no_renegotiation of the client", alerts_then_data((WARNING, NO_RENEGOTIATION)), Goes(), "tls1.2",
         openssl=Fails(HANDSHAKE_FAILURE), because="RFC 5246 7.2.2: it is a warning, and nobody wanted to renegotiate"),
]  # fmt: skip

OF_TLS12 = [
    *(Case("zero-length-data", "before data", pieces(5), Goes(), "tls1.2", cipher) for cipher in CIPHERS),
    Case("zero-length-data", "32 of them", empty_ones(32), Goes(), "tls1.2"),
    Case("zero-length-data", "33 of them", empty_ones(33), Fails(UNEXPECTED_MESSAGE, "too many empty TLS records"), "tls1.2"),
    *(case for cipher in TWO_CIPHERS for case in (
        Case("chacha20", "longest text", frames(FULL, b"A" * (MAX_TEXT - 8)), Goes(), "tls1.2", cipher),
        Case("chacha20", "text too long", sends((DATA, b"A" * (MAX_TEXT + 1))), TOO_LONG, "tls1.2", cipher),
        *(Case("chacha20", f"ciphertext of {size}", short(size), NO_DECRYPTION, "tls1.2", cipher,
               openssl=Fails((INTERNAL_ERROR, BAD_RECORD_MAC)),
               because="RFC 5246 7.2.2: what does not decrypt is answered by bad_record_mac") for size in (0, 1, 15)),
    )),
    *(Case("chacha20", f"text too long by {more}", sends((DATA, b"A" * (MAX_TEXT + more))), TOO_LONG, "tls1.2", "CHACHA20-POLY1305")
      for more in (1024, 2049)),
    Case("chacha20", "1/n-1", first_byte_alone, Goes(), "tls1.2"),
    Case("hello-request-by-client", "HelloRequest", sends((HANDSHAKE, message(HELLO_REQUEST))), NO_MESSAGE, "tls1.2"),
    Case("message-duplication", "ClientKeyExchange", sends((HANDSHAKE, message(16, b"\x41" + bytes(65)))), NO_MESSAGE, "tls1.2"),
    Case("message-duplication", "Finished", sends((HANDSHAKE, message(FINISHED, bytes(12)))), NO_MESSAGE, "tls1.2"),
    Case("message-duplication", "ChangeCipherSpec", sends((CHANGE_CIPHER_SPEC, b"\1")), NO_CCS, "tls1.2"),
    *(Case("renegotiation-disabled", f"{'secure' if secure else 'legacy'}, {where} data", renegotiates(secure, at), REFUSED, "tls1.2")
      for secure in (True, False) for where, at in (("before", 0), ("within", 5))),
    Case("interleaved-application-data-and-fragmented-handshakes", "data", message_within_data, REFUSED, "tls1.2",
         openssl=Fails(UNEXPECTED_MESSAGE), because="RFC 5246 6.2.1: data may come between the parts of a message"),
    Case("heartbeat", "request", sends((HEARTBEAT, b"\1\0\4test" + bytes(16))), WRONG_TYPE, "tls1.2"),
    Case("invalid-content-type", "25", sends((25, b"hello server!\n")), WRONG_TYPE, "tls1.2"),
    *(Case(OWN, f"{version}", other_version(version), Fails(PROTOCOL_VERSION, "TLS record of another version"), "tls1.2")
      for version in ((3, 1), (3, 4), (2, 0))),
    Case(OWN, "empty handshake record", sends((HANDSHAKE, b"")), EMPTY, "tls1.2",
         openssl=Goes(), because="RFC 5246 6.2.1: they must not be sent"),
    # The explicit part of the nonce.
    Case("fuzzed-ciphertext", "nonce", changed(5, 1), NO_DECRYPTION, "tls1.2", "AES128-GCM"),
    Case("fuzzed-ciphertext", "nonce", changed(12, 0x80), NO_DECRYPTION, "tls1.2", "AES256-GCM"),
]  # fmt: skip

#: Records that were changed on their way.
CHANGED = [
    Case(script, what, changed(at, bits, text), NO_DECRYPTION, version, cipher)
    for version, of_tags in (("tls1.2", "chacha20"), ("tls1.3", "tls13-symetric-ciphers")) for cipher in CIPHERS
    for script, what, at, bits, text in (
        (of_tags, "last byte of the tag changed", -1, 1, FRAME),
        (of_tags, "first byte of the tag changed", -TAG, 0x80, FRAME),
        ("fuzzed-ciphertext", "last byte of the text", -TAG - 1, 1, FRAME),
        ("cve-2016-7054", "within 512 bytes", 300, 0xFF, bytes(512)),
    )
]  # fmt: skip

TICKET = message(SESSION_TICKET, bytes(4) + bytes(4) + b"\1\0" + b"\0\4name" + b"\0\0")
#: With a context and one signature algorithm (RFC 8446 4.3.2). The ClientHello of mod_ssl allows it.
CERTIFICATE_REQUEST = message(13, b"\4post" + b"\0\x0a" + b"\0\x0d\0\6\0\4\4\3\x08\4")
OF_SERVERS = [
    Case(OWN, "one more", sends((HANDSHAKE, TICKET)), Goes()),
    Case(OWN, "two in one record", sends((HANDSHAKE, TICKET * 2)), Goes()),
    Case(OWN, "in parts", sends((HANDSHAKE, TICKET[:7]), (HANDSHAKE, TICKET[7:])), Goes()),
    Case(OWN, "data within one", sends((HANDSHAKE, TICKET[:7]), (DATA, FRAME)), INTERRUPTED),
    Case("tls13-post-handshake-auth", "CertificateRequest", sends((HANDSHAKE, CERTIFICATE_REQUEST)), NO_MESSAGE,
         openssl=GoesAnswering((CERTIFICATE, FINISHED)),
         because="RFC 8446 4.4.1: an answer is made of all that was said in the handshake, which only OpenSSL knows"),
    Case(OWN, "ServerHello", sends((HANDSHAKE, message(2, bytes(40)))), NO_MESSAGE),
    Case(OWN, "HelloRequest", sends((HANDSHAKE, message(HELLO_REQUEST))), REFUSED, "tls1.2"),
    Case(OWN, "HelloRequest within data", hello_request_within_data, REFUSED, "tls1.2"),
    Case(OWN, "ClientHello", sends((HANDSHAKE, message(CLIENT_HELLO, bytes(80)))), NO_MESSAGE, "tls1.2"),
]  # fmt: skip

BY_CLIENTS = [*KEY_UPDATES, *OF_TLS13, *OF_ALERTS, *OF_TLS12, *CHANGED]
BY_SERVERS = [*KEY_UPDATES, *(case for case in [*OF_TLS13, *OF_ALERTS] if not case.of_clients), *OF_SERVERS, *CHANGED[:2], *CHANGED[-2:]]
