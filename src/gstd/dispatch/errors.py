"""Broken rules about claims."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class InvalidProofError(GstdError):
    """The proof of work does not solve this device's challenge for this offer."""

    code = "invalid_proof"
    status = 403
    hint = "Solve the offer's own prefix, bits and count, and send the offer's fields unchanged."


class NeedsMoreTrustError(GstdError):
    """The task is only for devices of more trust."""

    code = "needs_more_trust"
    status = 403
    hint = "Trust grows with every result that is found right; ask for new offers meanwhile."


class PrivatePoolError(GstdError):
    """The task is only for devices of a pool that this account is not in."""

    code = "private_pool"
    status = 403
    hint = "Join the pool with the id and secret of its owner: `gstd pool join POOL`."


class OfferExpiredError(GstdError):
    """The offer's time is over."""

    code = "offer_expired"
    status = 409
    hint = "Ask for new offers and claim them before they expire."
