"""Settings of the security policies: `mx_auth { }` and its four parts.

They are the library's API as well: `mx_auth=[Dane(), MTASTS(cache="ram"), LocalPolicy()]`.
A policy that is not listed is off.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Final

from mailrider.model.security import MXLevel, TLSLevel
from mailrider.settings.directive import InvalidSetting, Settings, block, directive, optional, settings
from mailrider.settings.types import NETWORK, PATH, PORT, choice, many, show

if TYPE_CHECKING:
    from mailrider.settings.directive import Maybe, OptionalPath, Paths, Setting
    from mailrider.settings.types import IPNetwork


class STSCache(enum.StrEnum):
    """Where fetched MTA-STS policies are kept."""

    FS = "fs"
    RAM = "ram"


@settings
class MTASTS(Settings):
    """The MX must match the MTA-STS policy of the recipient domain (RFC 8461)."""

    cache: Setting[STSCache, str] = directive(
        choice(STSCache),
        default=STSCache.FS,
        doc="Where policies are kept. `fs`: a file for each domain, which survives a restart. "
        "`ram`: in memory; a restart forgets them, and with them the security they gave.",
    )
    fs_dir: OptionalPath = optional(
        PATH,
        state_path="mtasts_cache",
        shown_default="StateDirectory/mtasts_cache",
        doc="The directory of the `fs` cache.",
    )
    https_port: Setting[int, int] = directive(
        PORT,
        default=443,
        doc="The port that policies are fetched from; for labs, the RFC knows 443 only.",
    )
    root_ca: Paths = directive(
        many(PATH),
        default=(),
        shown_default="the system's",
        doc="PEM files with the authorities that policy hosts must be certified by, instead of the system's.",
    )
    allow_addresses: Setting[tuple[IPNetwork, ...], Iterable[IPNetwork | str]] = directive(
        many(NETWORK),
        default=(),
        shown_default="none",
        doc="Networks that policies may be fetched from although they are no part of the public internet, for those "
        "whose own DNS leads policy hosts there. `prohibited_addresses` goes before it; where that is `none`, all is "
        "allowed.",
    )


@settings
class Dane(Settings):
    """The certificate must match the TLSA records of the MX (RFC 7672). It has no directives."""


@settings
class DNSSEC(Settings):
    """MX records that were authenticated give MX level `dnssec`. It has no directives."""


@settings
class LocalPolicy(Settings):
    """The minimum levels that a connection must have, whatever the recipient's domain offers."""

    min_tls_level: Setting[TLSLevel, TLSLevel | str] = directive(
        choice(TLSLevel),
        default=TLSLevel.ENCRYPTED,
        doc="The minimum TLS level. `none`: clear text will do. `encrypted`: TLS with any "
        "certificate. `authenticated`: TLS with a certificate verified by PKIX or DANE.",
    )
    min_mx_level: Setting[MXLevel, MXLevel | str] = directive(
        choice(MXLevel),
        default=MXLevel.NONE,
        doc="The minimum MX level. `none`: MX records from plain DNS will do. `mtasts`: the MX "
        "matches the domain's MTA-STS policy. `dnssec`: the MX records were authenticated.",
    )

    @classmethod
    def off(cls) -> LocalPolicy:
        """Nothing is demanded; `local_policy off`."""
        return cls(min_tls_level=TLSLevel.NONE, min_mx_level=MXLevel.NONE)


Policy = MTASTS | Dane | DNSSEC | LocalPolicy


@settings
class MXAuth(Settings):
    """The policies that authenticate MX hosts and channels; any subset, each at most once.

    `is_stated` is False if nobody said anything, which in a configuration file means that nothing is enforced. Whoever
    wants that says so, with `mx_auth off`, None or [], and is not warned.
    """

    mtasts: Maybe[MTASTS] = optional(
        block(MTASTS, bare=True), shown_default="off", doc="Obey the MTA-STS policies of recipient domains (RFC 8461)."
    )
    dane: Maybe[Dane] = optional(
        block(Dane, bare=True),
        shown_default="off",
        doc="Verify certificates by TLSA records (RFC 7672). DNSSEC has to be validated: by `validate` of `dns`, or by "
        "a resolver on loopback.",
    )
    dnssec: Maybe[DNSSEC] = optional(
        block(DNSSEC, bare=True),
        shown_default="off",
        doc="MX records that DNSSEC proves give the MX level `dnssec`. It has to be validated, as for `dane`.",
    )
    local_policy: Maybe[LocalPolicy] = optional(
        block(LocalPolicy, shorthand={"off": LocalPolicy.off}, bare=True),
        shown_default="off",
        doc="Demand minimum levels of every connection. `local_policy off` demands nothing.",
    )
    is_stated: bool = field(default=True)

    @classmethod
    def of(cls, policies: object) -> MXAuth:
        """The set of these policies, None for none; `InvalidSetting` for one that is there twice or unknown."""
        if isinstance(policies, MXAuth):
            return policies
        if policies is None:
            return cls()
        if isinstance(policies, str) or not isinstance(policies, Iterable):
            raise InvalidSetting("mx_auth", f"expected a list of policies, such as [Dane()], not {show(policies)}")
        given: dict[str, Policy] = {}
        for policy in policies:
            name = _NAMES.get(type(policy))
            if name is None:
                raise InvalidSetting("mx_auth", f"expected policies, not {show(policy)}")
            if name in given:
                raise InvalidSetting("mx_auth", f"{name} is there twice")
            given[name] = policy
        return cls(**given)  # type: ignore[arg-type] # _NAMES matches names and types

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that are on, in the order of evaluation."""
        given = (self.mtasts, self.dane, self.dnssec, self.local_policy)
        return tuple(policy for policy in given if policy is not None)


SAFE: Final = MXAuth(mtasts=MTASTS(cache="ram"), dane=Dane(), dnssec=DNSSEC())
"""What a program gets that says nothing: all that recipient domains offer, and nothing that has to be set up."""
UNSTATED: Final = MXAuth(is_stated=False)
"""What a configuration file gets that says nothing."""

_NAMES: dict[type, str] = {
    MTASTS: "mtasts",
    Dane: "dane",
    DNSSEC: "dnssec",
    LocalPolicy: "local_policy",
}
