"""A job's live progress: one bar per step of a task's life."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from gstd.protocol.jobs import JobCounts, JobView

STEPS = ("queued", "running", "verifying", "accepted", "paid")


class StepProgress:
    """One bar for each step of a long work; nothing without a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update(self, step: str, done: int, of: int) -> None:
        """Show how far a step is."""
        if step not in self._bars:
            self._bars[step] = self._progress.add_task(step)
        self._progress.update(self._bars[step], completed=done, total=of)


class JobProgress(StepProgress):
    """Bars for queued, running, verifying, accepted and paid; plain lines without a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._console = console
        self._last = ""

    def show(self, job: JobView) -> None:
        """Show the job as it is now."""
        if self._console.is_terminal:
            for step in STEPS:
                self.update(step, getattr(job.counts, step), job.counts.tasks)
        else:
            self._line(job.counts)

    def _line(self, counts: JobCounts) -> None:
        line = ", ".join(f"{getattr(counts, step)} {step}" for step in STEPS)
        if line != self._last:
            self._last = line
            self._console.print(f"{line} of {counts.tasks}")
