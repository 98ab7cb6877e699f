"""Double entry: escrow, earnings and balances. The only writer of the ledger's tables."""
