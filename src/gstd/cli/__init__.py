"""The command ``gstd``: everything a person does from a terminal."""
