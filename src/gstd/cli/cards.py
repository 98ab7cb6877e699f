"""Cards that several commands show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gstd.cli.output import table
from gstd.kernel.money import format_gstd

if TYPE_CHECKING:
    from rich.table import Table

    from gstd.protocol.jobs import JobView


def job_card(job: JobView) -> Table:
    """A job as people read it."""
    card = table(f"{job.name} {job.id}", "", "")
    card.add_row("state", f"{job.state}: {job.reason}")
    if job.rerun_of is not None:
        card.add_row("rerun of", str(job.rerun_of))
    for parent in job.after:
        card.add_row("after", f"{parent.job_id} ({parent.shape.replace('_', ' ')})")
    counts = job.counts
    card.add_row("tasks", f"{counts.accepted} of {counts.tasks} accepted, {counts.paid} paid")
    card.add_row("wrong results", str(counts.rejected_results))
    for name in ("funded", "released", "fee", "referee", "refunded", "locked"):
        amount = format_gstd(int(getattr(job.money, f"{name}_nano")))
        card.add_row(name, f"{amount} {job.asset}")
    card.add_row("deadline", f"{job.deadline:%Y-%m-%d %H:%M} UTC")
    return card
