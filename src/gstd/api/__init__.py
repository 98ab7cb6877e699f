"""The HTTP interface: decode, call one use case, encode. Only this edge opens transactions."""
