"""How a fetch over HTTPS fails: a module of its own, for those who do without an HTTP client."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from mailrider.errors import NetworkError

if TYPE_CHECKING:
    from mailrider.model.domain import Domain


class FetchFailure(enum.StrEnum):
    """Why there is no file; the values are words for counters."""

    LOOKUP = "lookup"
    NO_ADDRESS = "no-address"
    PROHIBITED = "prohibited-address"
    CONNECT = "connect"
    CERTIFICATE = "certificate"
    TLS = "tls"
    REDIRECT = "redirect"
    STATUS = "status"
    MEDIA_TYPE = "media-type"
    ENCODING = "encoding"
    TOO_LARGE = "too-large"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"


class FetchFailed(NetworkError):
    """The file could not be had; `failure` says why in a word, the message in a sentence.

    `fault`: the status of an answer that was not 200, `404`, or OpenSSL's name of what is wrong with the certificate.
    """

    def __init__(self, host: Domain, failure: FetchFailure, detail: str, fault: str = "") -> None:
        super().__init__(f"https://{host}: {detail}")
        self.host = host
        self.failure = failure
        self.fault = fault
