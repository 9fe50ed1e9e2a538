"""Which hosts a certificate speaks for (RFC 9525, RFC 6125, RFC 7672 3.2.3).

Reference names are `Domain`s: A-labels, lower case. Presented names are the DNS-IDs of subjectAltName. A wildcard is
a whole left-most label, stands for exactly one label, and has at least two labels to its right. Addresses, URIs and
e-mail addresses in a certificate say nothing about a mail host.

The common name (CN-ID) counts in one case only: DANE-TA, when there is no DNS-ID at all (RFC 7672 3.2.3 says so). For
PKIX it never does: RFC 9525 2 drops it, and RFC 8461 4.1 demands a DNS-ID.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import NameOID
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern

from mailrider.model.reply import clean_text
from mailrider.x509.certificate import shorten
from mailrider.x509.verify_error import VerifyError, problem_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from mailrider.model.domain import Domain
    from mailrider.model.tls_problem import TLSProblem
    from mailrider.x509.certificate import Certificate

MAX_NAMES_SAID = 5  # names that one reason lists; a certificate may hold thousands
_MAX_DNS_NAME = 255  # characters of a presented name that are shown; longer ones match nothing


def dns_names(certificate: Certificate) -> tuple[str, ...]:
    """The DNS-IDs of a certificate, as they stand in it."""
    names = certificate.extension(x509.SubjectAlternativeName)
    return tuple(names.get_values_for_type(x509.DNSName)) if names else ()


def common_names(certificate: Certificate) -> tuple[str, ...]:
    """The common names of the subject, as they stand in it."""
    attributes = certificate.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return tuple(attribute.value for attribute in attributes if isinstance(attribute.value, str))


def presented_names(certificate: Certificate, *, common_name: bool) -> tuple[str, ...]:
    """The names that count: the DNS-IDs, or with `common_name`, and only without any DNS-ID, the common name."""
    return dns_names(certificate) or (common_names(certificate) if common_name else ())


def find_match(presented: Collection[str], references: Collection[Domain]) -> Domain | None:
    """The first of `references` that the certificate speaks for."""
    # A stranger's certificate may hold thousands of names: only those that can match are worth the reading.
    wanted = {form for name in references for form in (name.ascii, f"*.{name.parent}")}
    likely = [name for name in presented if name.strip().lower() in wanted]
    # One bad name in a certificate does not spoil the others, so each is read by itself.
    patterns = [pattern for name in likely if (pattern := _pattern(name))]
    return next((name for name in references if any(_matches(pattern, name) for pattern in patterns)), None)


def _pattern(name: str) -> DNSPattern | None:
    try:
        return DNSPattern.from_bytes(name.encode())
    except CertificateError:
        return None


def _matches(pattern: DNSPattern, name: Domain) -> bool:
    host = name.ascii
    if pattern.pattern.startswith(b"*."):
        # A whole-label wildcard covers any label, an A-label too (RFC 9525 6.3). service-identity would leave A-labels
        # out, and providers do name MX hosts after their customers' domains; so any plain label stands in for it.
        parent = name.parent
        if parent is None:
            return False
        host = f"any.{parent}"
    try:
        return DNS_ID(host).verify(pattern)
    except ValueError:  # a domain that Python can read as a number, such as 1_0
        return False


def name_problem(presented: Collection[str], references: Collection[Domain]) -> TLSProblem | None:
    """Why the certificate speaks for none of `references`; None if it does."""
    if find_match(presented, references) is not None:
        return None
    wanted = " or ".join(map(str, references))
    if not references:
        text = "there is no host name that it could prove"
    elif not presented:
        text = f"it names no host (no DNS name in subjectAltName), so it is not valid for {wanted}"
    else:
        text = f"valid only for {enumerate_names(presented)}, not for {wanted}"
    return problem_of(VerifyError.HOSTNAME_MISMATCH, text)


def enumerate_names(names: Collection[str]) -> str:
    """The names in a sentence: `a, b and 7 more`; clean and bounded, since a stranger chose them."""
    shown = [shorten(clean_text(name), _MAX_DNS_NAME) for name in list(names)[:MAX_NAMES_SAID]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
