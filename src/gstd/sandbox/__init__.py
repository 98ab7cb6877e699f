"""Runs strangers' WebAssembly modules: inspection, the WASI host, disposable child processes.

``Sandbox`` (``gstd.sandbox.runner``) runs modules, ``inspect_module`` (``gstd.sandbox.inspect``)
reads and refuses them. wasmtime is imported by the zygote and its children only.
"""
