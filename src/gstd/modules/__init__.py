"""Modules: upload, static checks and metadata."""
