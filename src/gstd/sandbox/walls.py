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
        if self.standing:
            rest = f"Only {' and '.join(self.standing)} would hold a module"
        else:
            rest = "Nothing but a few limits would hold a module"
        lost = " and no ".join(self.missing)
        return f"WEAK CAGE: this system has no {lost}. {rest} that breaks out of the engine."
