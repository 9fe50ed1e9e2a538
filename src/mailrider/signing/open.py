"""Makes signers from the settings of DKIM: keys are read from their files, or made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mailrider.dkim.sign import DKIMSigning, Signer
from mailrider.errors import ConfigError
from mailrider.signing.keys import key_path, open_key
from mailrider.signing.rotation import selector_in_use

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


def key_in_use(given: DKIMSettings, domain: Domain, state_dir: Path) -> tuple[str, Path]:
    """The selector that signs for one of the domains, and where its key is. Blocks. Raises `ConfigError`."""
    if given.options.key_path is not None:
        return given.selector, given.options.key_path
    directory = state_dir / DIRECTORY
    selector = selector_in_use(directory, domain, given.selector)
    return selector, key_path(directory, domain, selector)


def _open_signer(given: DKIMSettings, domain: Domain, state_dir: Path, emit: Emit) -> Signer:
    options = given.options
    selector, path = key_in_use(given, domain, state_dir)
    if not given.makes_key and not path.exists():
        raise ConfigError(
            f"dkim: there is no key {path}; `mailrider dkim new {domain} {selector}` makes one, or give key_path"
        )
    key = open_key(path, options.newkey_algo, domain, selector, emit)
    return Signer(
        domain,
        selector,
        key,
        options.oversign_fields,
        options.sign_fields,
        options.sig_expiry or None,
        options.sign_subdomains,
    )


async def open_signing(
    given: ModifySettings | None, clock: Clock, emit: Emit, outer: DKIMSigning | None = None
) -> DKIMSigning | None:
    """What signs, beside what signs `outer` it; None if nothing does. Keys are read or made. Raises `ConfigError`."""
    if given is None or not given.dkim:
        return outer
    if given.state_dir is None:
        raise ConfigError("dkim: no directory for keys; give state_dir")
    state_dir = given.state_dir
    signers = [signer for each in given.dkim for signer in await asyncio.to_thread(open_signers, each, state_dir, emit)]
    return DKIMSigning(signers, clock, emit) if outer is None else outer.extended(signers)
