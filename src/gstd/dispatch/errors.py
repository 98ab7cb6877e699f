"""Broken rules about claims."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class InvalidProofError(GstdError):
    """The proof of work does not solve this device's challenge for this offer."""

    code = "invalid_proof"
    status = 403
    hint = "Solve the offer's own prefix, bits and count, and send the offer's fields unchanged."


class OfferExpiredError(GstdError):
    """The offer's time is over."""

    code = "offer_expired"
    status = 409
    hint = "Ask for new offers and claim them before they expire."
