"""Why a request got no answer although nobody did anything wrong."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class ShuttingDownError(GstdError):
    """This process is stopping."""

    code = "shutting_down"
    status = 503
    hint = "Ask again: another process answers, or this one when it is back."


class ClientGoneError(GstdError):
    """The client hung up before its answer."""

    code = "client_gone"
    status = 408
