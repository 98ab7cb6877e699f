"""Broken rules about money."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class InsufficientFundsError(GstdError):
    """The account has less than the job would lock."""

    code = "insufficient_funds"
    status = 402
    hint = "Nothing was locked. Add funds, lower the reward, or post fewer tasks."


class TestCreditsOffError(GstdError):
    """Test credits exist only in development mode."""

    code = "test_credits_off"
    status = 403
    hint = "Deposit GSTD instead, or run the platform with GSTD_MODE=development."


class CorrectionNotFoundError(GstdError):
    """There is no such correction."""

    code = "correction_not_found"
    status = 404
    hint = "List them with `gstd admin correction list`."


class CorrectionDecidedError(GstdError):
    """The correction was applied or rejected before."""

    code = "correction_decided"
    status = 409
    hint = "Propose another one if more needs to be mended."


class SecondAdminError(GstdError):
    """Who proposed a correction may not apply it."""

    code = "second_admin_needed"
    status = 403
    hint = "Ask another admin to look at it and apply it. You may still reject it."
