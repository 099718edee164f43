"""A certificate for httpd and for TLS back ends, and the TLS contexts of the clients."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

TLS = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}

#: In place of the machine's own, of which some make a CA of it too. mod_ssl compares the host of an
#: https:// back end with dNSNames only, so the address is one.
SETTINGS = """[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = localhost
[extensions]
subjectAltName = DNS:localhost, DNS:site.test, DNS:127.0.0.1, IP:127.0.0.1
basicConstraints = critical, CA:FALSE
"""


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for the names of the tests, its own trust anchor."""

    cert: Path
    key: Path

    @classmethod
    def make(cls, directory):
        """Makes one with the openssl program in `directory`."""
        made = cls(Path(directory) / "cert.pem", Path(directory) / "key.pem")
        settings = Path(directory) / "openssl.cnf"
        settings.write_text(SETTINGS)
        # Not PKCS#8: with OpenSSL 1.1.1 mod_ssl does not find it behind SSLProxyMachineCertificateFile.
        key = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key]
        cert = ["req", "-x509", "-new", "-sha256", "-days", "2", "-config", settings, "-key", made.key, "-out", made.cert]
        for command in (key, cert):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        # Read by httpd's parent, which may not be the user that runs the tests' files.
        made.cert.chmod(0o644)
        return made

    def server_context(self, version=None, alpn=()):
        """The context of a TLS back end, `version` one of the keys of TLS or None for any."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return _pinned(context, version, alpn)

    def client_context(self, version=None, alpn=()):
        """The context of a client that trusts this certificate and nothing else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.cert)
        return _pinned(context, version, alpn)


def _pinned(context, version, alpn):
    # A peer that ends without close_notify must show as such.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if version:
        context.minimum_version = context.maximum_version = TLS[version]
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
