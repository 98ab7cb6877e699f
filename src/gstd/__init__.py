"""GSTD: a marketplace for verified compute on devices that nobody trusts."""

__version__ = "0.1.0"
