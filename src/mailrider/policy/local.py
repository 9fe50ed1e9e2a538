"""`mx_auth local_policy`: the least levels that the operator wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.model.security import Requirement
from mailrider.policy.base import DestinationPolicy, ReadyPolicy

if TYPE_CHECKING:
    from mailrider.model.route import Candidates, Host
    from mailrider.policy.settings import LocalPolicy

NAME = "local_policy"


class LocalMinimum(ReadyPolicy, DestinationPolicy):
    """The policy `local_policy` of a target; the same for every destination."""

    name = NAME

    def __init__(self, settings: LocalPolicy) -> None:
        self._requirement = Requirement(
            min_mx=settings.min_mx_level, min_tls=settings.min_tls_level, mx_reason=NAME, tls_reason=NAME
        )

    async def bind(self, _: Candidates, message: str = "") -> LocalMinimum:
        """The minimum binds every candidate."""
        return self

    async def requirement(self, _: Host) -> Requirement:
        """Both minimums."""
        return self._requirement
