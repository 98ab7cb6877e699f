"""PostgreSQL: pool, transactions, named SQL and migrations. The only room that knows asyncpg."""
