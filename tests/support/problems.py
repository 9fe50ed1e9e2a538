"""TLS problems for tests that only need one."""

from __future__ import annotations

from mailrider.model.tls_problem import TLSProblem, TLSProblemKind


def problem(
    text: str, kind: TLSProblemKind = TLSProblemKind.CLOSED, code: str = "", lines: tuple[str, ...] = ()
) -> TLSProblem:
    """A problem in these words."""
    return TLSProblem(kind, text, code, lines)
