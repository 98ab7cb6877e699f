"""Money, identifiers, time, canonical bytes, hashes and the base of every error."""
