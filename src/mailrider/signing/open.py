"""Settings of DKIM to what signs: the keys are read from their files, or made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mailrider.dkim.sign import DKIMSigning, Signer
from mailrider.errors import ConfigError
from mailrider.signing.keys import key_path, open_key

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.signing.settings import DKIMSettings, ModifySettings

DIRECTORY: Final = "dkim_keys"  # in the state directory


def open_signers(given: DKIMSettings, state_dir: Path, emit: Emit) -> list[Signer]:
    """Reads the keys, or makes them. Blocks. Raises `ConfigError`."""
    return [_open_signer(given, domain, state_dir, emit) for domain in given.domains]


def key_file(given: DKIMSettings, domain: Domain, state_dir: Path) -> Path:
    """Where the key of one of the domains is."""
    return given.options.key_path or key_path(state_dir / DIRECTORY, domain, given.selector)


def _open_signer(given: DKIMSettings, domain: Domain, state_dir: Path, emit: Emit) -> Signer:
    options = given.options
    path = key_file(given, domain, state_dir)
    key = open_key(path, options.newkey_algo, domain, given.selector, emit)
    return Signer(
        domain,
        given.selector,
        key,
        options.oversign_fields,
        options.sign_fields,
        options.sig_expiry or None,
        options.sign_subdomains,
    )


async def open_signing(
    given: ModifySettings | None, clock: Clock, emit: Emit, around: DKIMSigning | None = None
) -> DKIMSigning | None:
    """What signs, beside what signs `around` it; None if nothing does. Keys are read or made. Raises `ConfigError`."""
    if given is None or not given.dkim:
        return around
    if given.state_dir is None:
        raise ConfigError("dkim: no directory for keys; give state_dir")
    state_dir = given.state_dir
    signers = [signer for each in given.dkim for signer in await asyncio.to_thread(open_signers, each, state_dir, emit)]
    return DKIMSigning(signers, clock, emit) if around is None else around.extended(signers)
