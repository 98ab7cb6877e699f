"""Structs and byte layouts that cross the network."""
