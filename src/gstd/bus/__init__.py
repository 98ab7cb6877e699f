"""Valkey: wake-ups, presence and soft holds. Only what can be rebuilt; nothing depends on it."""
