"""The base of every error a person or a program may meet: a code, a sentence and a hint.

A room's ``errors.py`` has one class per broken rule. Use cases over arrays return a rule's
``refusal()`` as a value, so one bad item never spoils the others.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refused", tag_field="outcome"):
    """Why one item was not done. ``code`` is stable; ``hint`` says what to do instead."""

    code: str
    detail: str
    hint: str


class GstdError(Exception):
    """A broken rule. Subclasses set ``code``, the HTTP ``status`` and the default ``hint``."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    hint: ClassVar[str] = "Try again; if it persists, report it with the request id."

    def __init__(self, detail: str | None = None, *, hint: str | None = None) -> None:
        self.detail = detail or (self.__doc__ or self.code).strip().splitlines()[0]
        self.advice = hint or self.hint
        super().__init__(self.detail)

    def refusal(self) -> Refusal:
        """This error as the outcome of one item."""
        return Refusal(code=self.code, detail=self.detail, hint=self.advice)


class InvalidInputError(GstdError):
    """The input does not have the promised shape."""

    code = "invalid_input"
    status = 400
    hint = "Compare the request with the API reference at /docs."
