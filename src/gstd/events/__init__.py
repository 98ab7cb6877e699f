"""What happened: an outbox inside every transaction, numbered without gaps into one log."""
