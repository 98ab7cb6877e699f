"""Typed clients: ``Client`` for people and programs, ``DeviceClient`` for devices."""

from gstd.sdk.client import Client
from gstd.sdk.device import DeviceClient
from gstd.sdk.errors import ApiError, SdkError, UnexpectedAnswerError, UnreachableError
from gstd.sdk.pacing import Pacing

__all__ = [
    "ApiError",
    "Client",
    "DeviceClient",
    "Pacing",
    "SdkError",
    "UnexpectedAnswerError",
    "UnreachableError",
]
