"""What a postmaster should know about settings that are right, and weak. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.app.check.finding import note, warning
from mailrider.delivery.settings import PROHIBITED_ADDRESSES
from mailrider.model.ip import is_within
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.model.text import few
from mailrider.net.settings import TLSVersion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.app.check.finding import Finding
    from mailrider.delivery.settings import RemoteSettings
    from mailrider.endpoint.settings import EndpointSettings
    from mailrider.policy.settings import MXAuth


def weaknesses(label: str, settings: RemoteSettings, validates: bool) -> Iterator[Finding]:
    """What a postmaster should know about a target's settings. Pure."""
    auth = settings.mx_auth
    if not auth.is_stated:
        text = "without mx_auth nothing is enforced: whoever controls the network can read and redirect mail"
        cure = "mx_auth { mtasts  dane  dnssec  local_policy }, each on a line of its own, or mx_auth off"
        yield warning(label, text, cure)
    elif not auth.policies:
        yield note(label, "mx_auth is off, and says so: nothing is enforced")
    else:
        yield from _weak_policies(label, settings, auth, validates)
    given = settings.prohibited_addresses
    allowed = [each for each in PROHIBITED_ADDRESSES if not all(is_within(end, given) for end in (each[0], each[-1]))]
    if allowed:
        text = f"prohibited_addresses does not cover {few(map(str, allowed))}: other people's zones may point at us"
        yield warning(label, text, "name them too, beside your own networks")
    if settings.port != 25:
        yield warning(label, f"port {settings.port} is for labs: MX hosts listen on 25")
    if settings.tls_client is not None and settings.tls_client.protocols[0] < "tls1.2":
        yield warning(label, f"{settings.tls_client.protocols[0].value} is insecure", "protocols tls1.2 tls1.3")


def endpoint_weaknesses(label: str, settings: EndpointSettings) -> Iterator[Finding]:
    """What is weak in the settings of an endpoint. Pure."""
    oldest = settings.tls.versions[0] if settings.tls is not None and settings.tls.is_on else TLSVersion.TLS1_2
    if oldest < TLSVersion.TLS1_2:
        text = f"{oldest.value} is insecure: whoever listens may read mail and passwords of clients that use it"
        yield warning(label, text, "protocols tls1.2, or an endpoint of their own for devices that need it")
    if not any(settings.every_target) and settings.reject is None:
        yield warning(label, "all mail is refused: nothing says where it goes", "deliver_to &TARGET, or reject")


def _weak_policies(label: str, settings: RemoteSettings, auth: MXAuth, validates: bool) -> Iterator[Finding]:
    if (auth.dane or auth.dnssec) and not validates:
        text = "dane and dnssec are listed, but the resolver cannot support them"
        yield warning(
            label,
            text,
            "dns { validate auto } and libunbound, or dns { server 127.0.0.1 } with a validating resolver there",
        )
    yield from _unreachable(label, auth)
    if auth.local_policy is None or auth.local_policy.min_tls_level is TLSLevel.NONE:
        text = "domains without DANE or MTA-STS may get mail in clear"
        yield note(label, text, "local_policy { min_tls_level encrypted } refuses that")
    if auth.local_policy is not None and settings.requiretls_override:
        text = "a sender can waive local_policy with `TLS-Required: No`"
        yield note(label, text, "requiretls_override no forbids that")


def _unreachable(label: str, auth: MXAuth) -> Iterator[Finding]:
    """An MX level that is demanded, and that no listed policy awards."""
    demanded = auth.local_policy.min_mx_level if auth.local_policy is not None else MXLevel.NONE
    awarded = MXLevel.DNSSEC if auth.dnssec else MXLevel.MTASTS if auth.mtasts else MXLevel.NONE
    if demanded > awarded:
        text = f"local_policy demands MX level {demanded.word}, which no listed policy awards: all mail is deferred"
        cure = "list dnssec" if demanded is MXLevel.DNSSEC else "list mtasts, dnssec or both"
        yield warning(label, text, cure)
