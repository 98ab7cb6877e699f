"""The notes of one process, for the time without Valkey."""

from __future__ import annotations

from collections.abc import Callable

_SWEEP_ABOVE = 10_000
"""Notes before the first sweep; each later one waits until twice what it left has gathered."""


class LocalNotes:
    """Holds and notes with an end, and presence. ``monotonic`` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._now = monotonic
        self._holds: dict[str, tuple[int, float]] = {}
        self._sweep_above = _SWEEP_ABOVE
        self.presence: dict[str, int] = {}
        self._notes: dict[str, tuple[bytes, float]] = {}
        self._notes_sweep_above = _SWEEP_ABOVE

    def write(self, name: str, note: bytes, ttl_ms: int) -> None:
        """Keep a note for a while."""
        now = self._now()
        if len(self._notes) > self._notes_sweep_above:
            self._notes = {key: kept for key, kept in self._notes.items() if kept[1] > now}
            self._notes_sweep_above = max(_SWEEP_ABOVE, 2 * len(self._notes))
        self._notes[name] = (note, now + ttl_ms / 1000)

    def read(self, name: str) -> bytes | None:
        """The note, unless its time is over."""
        note, until = self._notes.get(name, (b"", 0.0))
        return note if until > self._now() else None

    def hold(self, name: str, places: int, ttl_ms: int) -> bool:
        """Whether one of the name's places was free and is now held."""
        now = self._now()
        if len(self._holds) > self._sweep_above:
            self._holds = {key: note for key, note in self._holds.items() if note[1] > now}
            self._sweep_above = max(_SWEEP_ABOVE, 2 * len(self._holds))
        held = self.held(name)
        if held >= places:
            return False
        self._holds[name] = (held + 1, now + ttl_ms / 1000)
        return True

    def held(self, name: str) -> int:
        """How many of the name's places are held now."""
        held, until = self._holds.get(name, (0, 0.0))
        return held if until > self._now() else 0

    def drop(self, name: str) -> None:
        """Give back one place."""
        held, until = self._holds.get(name, (0, 0.0))
        if held > 0:
            self._holds[name] = (held - 1, until)
