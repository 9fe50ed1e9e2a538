"""Certificates of our own while they are in use: the log says once that one expires soon, and once that it has expired.

What counts is what was loaded when the configuration was opened: a newer file does not help before it is reloaded. The
days are counted by the clock on the wall, which is looked at each hour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.app.check.finding import Level
from mailrider.app.check.local import about_validity, certificates_of, read_certificate, unreadable_certificate
from mailrider.app.timers import Timers
from mailrider.errors import InvalidValue
from mailrider.model.daemon_event import OwnCertificateExpires, OwnCertificateFaulty

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.config import Configuration
    from mailrider.model.event import Emit
    from mailrider.x509.certificate import Certificate

LOOK_AGAIN: Final = 3600.0  # seconds
NOT_RELOADED: Final = "the file has a newer certificate, which is used after a reload (systemctl reload mailrider)"


class CertificateWatch:
    """Looks at those of one configuration, until it is closed."""

    def __init__(self, configuration: Configuration, clock: Clock, emit: Emit) -> None:
        self._clock = clock
        self._emit = emit
        self._timers = Timers(clock)
        self._in_use: dict[tuple[str, Path], Certificate] = {}
        self._told: dict[tuple[str, Path], Level] = {}
        for each in certificates_of(configuration):
            try:
                self._in_use[each.owner, each.path] = read_certificate(each.path)
            except (OSError, InvalidValue) as error:
                emit(OwnCertificateFaulty(each.owner, unreadable_certificate(each.path, error), ""))

    def open(self) -> None:
        """Look now, and again each hour."""
        self._look()
        self._timers.repeat("look", LOOK_AGAIN, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timers.cancel()

    def _look(self) -> None:
        for (owner, path), certificate in self._in_use.items():
            found = about_validity(owner, path, certificate, self._clock.now())
            if found.level is self._told.get((owner, path)):
                continue
            self._told[owner, path] = found.level
            cure = NOT_RELOADED if found.cure and _has_newer(path, certificate) else found.cure
            if found.level is Level.ERROR:
                self._emit(OwnCertificateFaulty(owner, found.text, cure))
            elif found.level is Level.WARNING:
                self._emit(OwnCertificateExpires(owner, found.text, cure))


def _has_newer(path: Path, certificate: Certificate) -> bool:
    try:
        return read_certificate(path).not_after > certificate.not_after
    except (OSError, InvalidValue):
        return False
