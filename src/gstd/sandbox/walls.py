"""Which walls of the kernel stand around a module, in words for whoever lends the machine."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Wall(StrEnum):
    """A wall that not every kernel has. The order is the order in which a child raises them."""

    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


class Walls(msgspec.Struct, frozen=True):
    """What a trial child of the zygote could raise."""

    standing: tuple[Wall, ...]

    @property
    def missing(self) -> tuple[Wall, ...]:
        """What this machine does not have."""
        return tuple(wall for wall in Wall if wall not in self.standing)

    @property
    def words(self) -> str:
        """One line: the cage of this machine."""
        if not self.missing:
            return f"modules run caged by {' and '.join(self.standing)}"
        lost = " and ".join(self.missing)
        rest = f", only by {' and '.join(self.standing)}" if self.standing else ""
        return (
            f"WEAK CAGE: this system has no {lost}. Modules of strangers are held by the engine "
            f"and by limits{rest}; a hole in the engine would reach "
            + ("what this user may." if self.standing else "everything this user may.")
        )
