"""From queued task to submitted result: offers, claims, heartbeats, submits, releases."""
