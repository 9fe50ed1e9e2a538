"""A certificate of our own that expires while it is in use."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mailrider.app.certificate_watch import NOT_RELOADED, CertificateWatch
from mailrider.config import load
from mailrider.lab.ca import CA, LIFETIME
from mailrider.model.daemon_event import OwnCertificateExpires, OwnCertificateFaulty
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.model.event import Event

ISSUED = FakeClock().now()
LIFE = LIFETIME.days  # of a certificate of the lab


class Site:
    """A daemon's certificate, watched from its first day on."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.cert, key = CA(now=ISSUED).issue(["mx.here.test"]).write(tmp_path, "server")
        file = tmp_path / "mailrider.conf"
        file.write_text(
            f"hostname mx.here.test\nstate_dir {tmp_path}/state\ntls {self.cert} {key}\n"
            "target.smtp next {\nhost tcp://127.0.0.1:9\n}\nsubmission tcp://127.0.0.1:9 {\ndeliver_to &next\n}\n"
        )
        self.clock = FakeClock()
        self.told: list[Event] = []
        self.watch = CertificateWatch(load(file), self.clock, self.told.append)

    def renew(self) -> None:
        CA(now=ISSUED + timedelta(days=300)).issue(["mx.here.test"]).write(self.folder, "server")

    async def pass_days(self, days: float) -> None:
        self.clock.jump(timedelta(days=days))
        await self.clock.advance(3600)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_it_is_told_once_days_before_and_once_when_it_has_expired(site: Site) -> None:
    site.watch.open()
    await site.pass_days(LIFE - 20)
    assert site.told == []
    for _ in range(3):
        await site.pass_days(3)
    (soon,) = site.told
    assert isinstance(soon, OwnCertificateExpires)
    assert (soon.owner, soon.level) == ("submission", "warning")
    assert soon.reason.startswith(f"the certificate {site.cert} expires in 13 days, on ")
    assert "systemctl reload mailrider" in soon.advice
    for _ in range(5):
        await site.pass_days(3)
    _, expired = site.told
    assert isinstance(expired, OwnCertificateFaulty)
    assert expired.reason.startswith(f"the certificate {site.cert} expired on ")


async def test_a_renewed_file_is_no_help_before_a_reload_and_the_log_says_so(site: Site) -> None:
    site.watch.open()
    site.renew()
    await site.pass_days(LIFE - 5)
    (soon,) = site.told
    assert isinstance(soon, OwnCertificateExpires)
    assert soon.advice == NOT_RELOADED


async def test_a_file_that_is_gone_meanwhile_hides_nothing(site: Site) -> None:
    site.watch.open()
    site.cert.unlink()
    await site.pass_days(LIFE - 5)
    assert [type(each) for each in site.told] == [OwnCertificateExpires]


async def test_what_is_closed_looks_no_more(site: Site) -> None:
    site.watch.open()
    site.watch.close()
    await site.pass_days(LIFE)
    assert site.told == []
    assert site.clock.pending == 0


async def test_a_certificate_that_cannot_be_read_at_the_start_is_told_at_once(site: Site) -> None:
    site.cert.write_text("nothing")
    again: list[Event] = []
    CertificateWatch(load(site.folder / "mailrider.conf"), site.clock, again.append).open()
    (faulty,) = again
    assert isinstance(faulty, OwnCertificateFaulty)
    assert f"the certificate {site.cert} cannot be read" in faulty.reason
