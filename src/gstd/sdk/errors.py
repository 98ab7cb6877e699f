"""What can go wrong between a client and the platform."""

from __future__ import annotations

from typing import Self

import msgspec

from gstd.kernel.errors import GstdError
from gstd.protocol.people import Problem

TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that may be different when the same request is sent later."""


class SdkError(GstdError):
    """A call did not give the promised answer."""

    code = "sdk_error"
    status = 502

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later."""
        return False


class UnreachableError(SdkError):
    """The platform does not answer."""

    code = "unreachable"
    status = 503
    hint = "Is `gstd up` running? Check the URL and the network."

    @property
    def is_transient(self) -> bool:
        return True


class UnexpectedAnswerError(SdkError):
    """The answer does not have the promised shape."""

    code = "unexpected_answer"
    hint = "Check that the URL is that of a GSTD platform, of the same version as this program."


class ApiError(SdkError):
    """The platform refused: its own ``code``, ``status``, ``detail``, ``hint``, ``request_id``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, hint=problem.hint)
        # The base has one code per class; here every instance carries the platform's own.
        vars(self).update(code=problem.code, status=problem.status, hint=problem.hint)
        self.request_id = problem.request_id

    @property
    def is_transient(self) -> bool:
        return self.status in TRANSIENT_STATUSES

    @classmethod
    def of(cls, status: int, body: bytes, request_id: str) -> Self:
        """The error of an answer; one without a problem (a proxy's page) gets a code of its own."""
        try:
            return cls(msgspec.json.decode(body, type=Problem))
        except msgspec.MsgspecError:
            return cls(
                Problem(
                    type="about:blank",
                    title=f"HTTP {status}",
                    status=status,
                    code=f"http_{status}",
                    detail=f"the server answered HTTP {status} without saying why",
                    hint="Check the URL, and any proxy between you and the platform.",
                    request_id=request_id,
                )
            )
