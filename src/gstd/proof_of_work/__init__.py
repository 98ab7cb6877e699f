"""Challenge, difficulty, verifier and solver of the proof of work that a claim carries."""
