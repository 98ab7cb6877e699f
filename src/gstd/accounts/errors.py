"""Broken rules about identity."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class NotAuthenticatedError(GstdError):
    """The request carries no valid credential."""

    code = "not_authenticated"
    status = 401
    hint = "Send `Authorization: Bearer <API key>`, or sign the request as an enrolled device."


class NotAllowedError(GstdError):
    """The account lacks the role for this."""

    code = "not_allowed"
    status = 403
    hint = "Use a key of an account with the role that the message names."


class DeviceBarredError(GstdError):
    """The device may not work any more."""

    code = "device_barred"
    status = 403
    hint = (
        "Too many of its results were proved wrong, or its owner revoked it. Enrol another device."
    )


class StaleRequestError(GstdError):
    """A signed request is too old, too new, or was sent before."""

    code = "stale_request"
    status = 401
    hint = "Set the device's clock, and sign every request anew with a fresh nonce."


class InvalidCodeError(GstdError):
    """The enrolment code is unknown, used or expired."""

    code = "invalid_enrolment_code"
    status = 422
    hint = "Ask for a new code with `gstd worker code`; it lives 15 minutes and works once."


class DeviceKeyTakenError(GstdError):
    """This key already belongs to a device of another account."""

    code = "device_key_taken"
    status = 409
    hint = "Generate a new device key: delete the worker's key file and enrol again."


class AccountNotFoundError(GstdError):
    """There is no such account."""

    code = "account_not_found"
    status = 404
    hint = "Take the account's id from where it was made, or from `gstd wallet`."


class DeviceNotFoundError(GstdError):
    """The account has no such device."""

    code = "device_not_found"
    status = 404
    hint = "List the account's devices at /api/v1/devices."


class PoolNotFoundError(GstdError):
    """The account neither owns nor has joined such a pool."""

    code = "pool_not_found"
    status = 404
    hint = "List your pools with `gstd pool list`; join one with the id and secret of its owner."


class WrongPoolSecretError(GstdError):
    """No pool has this id and this secret."""

    code = "wrong_pool_secret"
    status = 403
    hint = "Ask the pool's owner for its id and present secret: removing a member changes it."


class PoolOwnerStaysError(GstdError):
    """The owner of a pool is always a member of it."""

    code = "pool_owner_stays"
    status = 409
    hint = "To keep a device out of your pool, set its limits: `gstd worker limit --help`."


class TooManyPoolsError(GstdError):
    """The account is in as many pools as it may be."""

    code = "too_many_pools"
    status = 409
    hint = "Leave a pool first: `gstd pool leave POOL`."


class IdempotencyKeyRequiredError(GstdError):
    """This request moves money, so it needs an Idempotency-Key."""

    code = "idempotency_key_required"
    status = 400
    hint = (
        "Send the header `Idempotency-Key` with 1 to 200 characters of your choice, such as a new "
        "UUID. Keep it, and send it again with every repetition of this request: without it, a "
        "request that is repeated because its answer was lost would pay twice."
    )


class IdempotencyConflictError(GstdError):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_conflict"
    status = 409
    hint = "Use a new key for a new request; repeat the old request unchanged to see its answer."
