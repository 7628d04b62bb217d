"""What a client of TLS trusts and shows, the same for the line to the hub and for every broker."""

import ssl
from pathlib import Path

from events.errors import Unavailable


class Unusable(Unavailable):
    """A file of certificates or keys that cannot be used; `field` is the setting that names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def client_context(authority: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """PEM files: `authority` is trusted and no other (None: the system's are), `certificate` and its `key` are shown. Raises `Unusable`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(authority)
        except OSError as error:
            raise Unusable(
                "authority",
                f"{authority} cannot be used ({error}): name the PEM file of the authority that signed the server's certificate",
            ) from error
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=lambda: "")  # never asked for on a terminal
        except OSError as error:
            raise Unusable(
                "certificate",
                f"{certificate} and {key or 'the key in it'} cannot be used ({error}): name PEM files that belong together, "
                "the key without a password",
            ) from error
    return context
