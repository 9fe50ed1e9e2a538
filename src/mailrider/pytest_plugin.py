"""pytest: the fixture `mailrider_lab`, a private internet of mail servers for one test.

    def test_the_shop_confirms(mailrider_lab):
        confirm_order(mailrider.sync.Remote(mailrider_lab.settings))
        (sent,) = mailrider_lab.sent_to("b@dane.test")
        assert sent.message["Subject"] == "Your order"

    def test_the_shop_tells_of_a_full_mailbox(mailrider_lab):
        mailrider_lab.refuse("b@dane.test", "452 4.2.2 Full")
        ...

The plugin is loaded in every run of pytest where mailrider is installed: it imports nothing of it before the fixture
is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.lab.pytest_lab import PytestLab


@pytest.fixture
def mailrider_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PytestLab]:
    """A private internet on free ports of loopback, for this test alone; see `mailrider.lab.pytest_lab.PytestLab`."""
    from mailrider.lab.pytest_lab import PytestLab

    with PytestLab(tmp_path_factory.mktemp("mailrider")) as lab:
        yield lab
