"""``make bench``: all measurements, as tables or with ``--json`` as one object."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from benchmarks import coalescing, engine, ledger, startup, starvation, statements
from gstd.cli.output import out, table


async def main() -> None:
    """Measure and print."""
    counts = await statements.measure()
    together = await coalescing.measure()
    transfers = await ledger.measure()
    work = await engine.measure()
    start = await startup.measure()
    waits = starvation.measure()
    if "--json" in sys.argv:
        found = {
            "statements": counts,
            "coalescing": together,
            "ledger": transfers,
            "engine": work,
            "startup": start,
            "waits": waits,
        }
        print(msgspec.json.encode(found).decode())
        return
    rows = table("SQL statements", "step", "#one", "#batch of 64", "#per item in the batch")
    for item in counts:
        rows.add_row(item.step, str(item.single), str(item.batch), f"{item.per_item_in_batch:.2f}")
    out.print(rows)
    coalescing.show(together)
    ledger.show(transfers)
    engine.show(work)
    starvation.show(waits)
    seconds = table("Seconds from the command", "", "#s")
    seconds.add_row("empty state folder to ready", str(start.cold_ready_s))
    seconds.add_row("warm start to ready", str(start.warm_ready_s))
    seconds.add_row("warm start to the first paid task", str(start.warm_first_paid_s))
    out.print(seconds)


if __name__ == "__main__":
    asyncio.run(main())
