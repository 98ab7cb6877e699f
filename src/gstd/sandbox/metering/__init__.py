"""Rewrites a module so that it counts its own fuel, alike in every engine.

``docs/reference/metering.md`` specifies every byte of it.
"""

from gstd.sandbox.metering.layout import MeteringLimits
from gstd.sandbox.metering.rewrite import Metered, rewrite

__all__ = ["Metered", "MeteringLimits", "rewrite"]
