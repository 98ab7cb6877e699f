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
