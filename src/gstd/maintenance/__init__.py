"""Periodic work: one leader at a time expires, fills, vests, closes and reconciles."""
