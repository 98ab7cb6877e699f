"""Broken rules about modules. What is wrong inside a binary is said by the sandbox's errors."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class UnknownModuleError(GstdError):
    """No module has this hash."""

    code = "module_not_found"
    status = 404
    hint = "Upload it first with `gstd module push FILE`, or list yours with `gstd module list`."
