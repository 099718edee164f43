"""A TLS back end for messages of TLS's own that come in part."""

import pytest

from .backend import Backend

#: Bytes of a KeyUpdate with which OpenSSL has begun to read it.
PART = 4


@pytest.fixture(scope="module")
def secrets(scratch):
    """Where its keys are."""
    return scratch / "secrets"


@pytest.fixture(scope="module")
def partial(certificate, secrets):
    """A TLS 1.3 back end that sends no session tickets: its first record is its answer."""
    context = certificate.server_context("tls1.3")
    context.num_tickets, context.keylog_filename = 0, str(secrets)
    made = Backend(tls=context, name="partial")
    yield made
    made.close()
