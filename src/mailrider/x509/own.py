"""Our own certificate, as it stands in a file: for how long it holds, and for which names."""

from __future__ import annotations

import base64
import re
from typing import Final

from mailrider.errors import InvalidValue
from mailrider.x509.certificate import Certificate, parse_certificate

MAX_FILE: Final = 1 << 20  # octets of a file with a chain

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END")


def read_first(pem: bytes) -> Certificate:
    """The first certificate in a PEM file, which is the one that it is about. Raises `InvalidValue`."""
    match = _PEM.search(pem[:MAX_FILE])
    if match is None:
        raise InvalidValue("there is no certificate in PEM")
    try:
        der = base64.b64decode(b"".join(match[1].split()), validate=True)
    except ValueError as error:
        raise InvalidValue("the certificate is damaged") from error
    return parse_certificate(der)
