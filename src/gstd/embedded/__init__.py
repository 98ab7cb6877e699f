"""Finds, starts, watches and stops PostgreSQL and Valkey, and our own processes beside them.

* ``postgres.EmbeddedPostgres`` and ``valkey.EmbeddedValkey`` are the two servers;
* ``process.ManagedProcess`` keeps one child alive, ``process.Supervisor`` several in order;
* ``leash.hold_leash()`` is the first call of every child that may not outlive its owner;
* ``errors`` names what can go wrong.

Nothing is imported here: the leash must start fast.
"""
