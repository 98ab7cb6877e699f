#!/bin/sh
# Builds mandelbrot.wasm. Debian: apt-get install clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32
set -eu
cd "$(dirname "$0")"
"${CLANG:-clang-14}" --target=wasm32-wasi -O2 -Wall -Wextra -Wl,--strip-all mandelbrot.c -o mandelbrot.wasm
ls -l mandelbrot.wasm
