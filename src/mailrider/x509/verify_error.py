"""OpenSSL's names for what is wrong with a certificate, and the kind of problem that each one is.

What we find ourselves beside OpenSSL gets the nearest of these names.
"""

from __future__ import annotations

import enum

from mailrider.model.tls_problem import TLSProblem, TLSProblemKind


class VerifyError(enum.IntEnum):
    """The errors that a path may have; others are `UNSPECIFIED`. Names and numbers as in OpenSSL's `x509_vfy.h`."""

    UNSPECIFIED = 1
    UNABLE_TO_GET_ISSUER_CERT = 2
    UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY = 6
    CERT_SIGNATURE_FAILURE = 7
    CERT_NOT_YET_VALID = 9
    CERT_HAS_EXPIRED = 10
    DEPTH_ZERO_SELF_SIGNED_CERT = 18
    SELF_SIGNED_CERT_IN_CHAIN = 19
    UNABLE_TO_GET_ISSUER_CERT_LOCALLY = 20
    UNABLE_TO_VERIFY_LEAF_SIGNATURE = 21
    CERT_CHAIN_TOO_LONG = 22
    PATH_LENGTH_EXCEEDED = 25
    INVALID_PURPOSE = 26
    CERT_UNTRUSTED = 27
    CERT_REJECTED = 28
    KEYUSAGE_NO_CERTSIGN = 32
    UNHANDLED_CRITICAL_EXTENSION = 34
    INVALID_EXTENSION = 41
    PERMITTED_VIOLATION = 47
    EXCLUDED_VIOLATION = 48
    HOSTNAME_MISMATCH = 62
    EE_KEY_TOO_SMALL = 66
    CA_KEY_TOO_SMALL = 67
    CA_MD_TOO_WEAK = 68
    INVALID_CA = 79

    @classmethod
    def of(cls, number: int) -> VerifyError:
        """The error with OpenSSL's number."""
        return cls(number) if number in cls._value2member_map_ else cls.UNSPECIFIED

    @property
    def code(self) -> str:
        """The name as OpenSSL writes it."""
        return f"X509_V_ERR_{self.name}"


_KINDS = {
    VerifyError.HOSTNAME_MISMATCH: TLSProblemKind.WRONG_NAME,
    VerifyError.CERT_HAS_EXPIRED: TLSProblemKind.EXPIRED,
    VerifyError.CERT_NOT_YET_VALID: TLSProblemKind.NOT_YET_VALID,
}


def problem_of(error: VerifyError, text: str) -> TLSProblem:
    """The problem that an error is, in the words of `text`."""
    return TLSProblem(_KINDS.get(error, TLSProblemKind.NOT_TRUSTED), text, error.code)
