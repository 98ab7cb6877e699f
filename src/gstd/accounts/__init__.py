"""Accounts, API keys and devices: who somebody is, from the credential alone."""
