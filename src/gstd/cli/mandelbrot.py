"""The example job: a picture of the Mandelbrot set in tiles."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from PIL import Image
from rich.text import Text

from gstd.kernel.errors import GstdError
from gstd.protocol.execution import Limits
from gstd.protocol.graphs import JobInput
from gstd.protocol.jobs import JobRequest
from gstd.protocol.types import Asset, Tier

TILES = 8
TILE_PIXELS = 64
ITERATIONS = 1000
LIMITS = Limits(fuel=4_000_000_000, memory_bytes=64 << 20, output_bytes=1 << 20)

PREVIEW_COLUMNS = 64


class ExampleMissingError(GstdError):
    """The example module is not where it should be."""

    code = "example_missing"
    hint = "Run from a checkout, or install the wheel, which carries it."


def module_bytes() -> bytes:
    """The prebuilt module: from the installed package, else from the checkout."""
    packaged = Path(str(files("gstd.cli"))) / "mandelbrot.wasm"
    checkout = Path(__file__).parents[3] / "examples" / "mandelbrot" / "mandelbrot.wasm"
    for path in (packaged, checkout):
        if path.is_file():
            return path.read_bytes()
    raise ExampleMissingError


def job_request(module_id: str, reward_nano: int, asset: Asset) -> JobRequest:
    """All tiles as one job whose results the platform proves."""
    return JobRequest(
        module=module_id,
        name="Mandelbrot",
        reward_nano=str(reward_nano),
        inputs=[tile_input(index) for index in range(TILES * TILES)],
        tier=Tier.FULL,
        asset=asset,
        limits=LIMITS,
    )


def tile_input(index: int) -> JobInput:
    """The arguments of one tile, counted row by row."""
    row, column = divmod(index, TILES)
    numbers = (column, row, TILES, TILE_PIXELS, ITERATIONS)
    return JobInput(args=tuple(str(number) for number in numbers))


def assemble(tiles: Mapping[int, bytes]) -> Image.Image:
    """The picture of the tiles by index, each raw RGB."""
    size = TILES * TILE_PIXELS
    picture = Image.new("RGB", (size, size))
    for index, data in tiles.items():
        row, column = divmod(index, TILES)
        tile = Image.frombytes("RGB", (TILE_PIXELS, TILE_PIXELS), data)
        picture.paste(tile, (column * TILE_PIXELS, row * TILE_PIXELS))
    return picture


def preview(picture: Image.Image) -> Text:
    """The picture for a terminal: two pixels per character."""
    small = picture.resize((PREVIEW_COLUMNS, PREVIEW_COLUMNS), Image.Resampling.LANCZOS)
    data = small.tobytes()
    text = Text()
    for y in range(0, PREVIEW_COLUMNS, 2):
        for x in range(PREVIEW_COLUMNS):
            upper, lower = _colour(data, x, y), _colour(data, x, y + 1)
            text.append("▀", style=f"{upper} on {lower}")
        text.append("\n")
    return text


def _colour(data: bytes, x: int, y: int) -> str:
    at = 3 * (y * PREVIEW_COLUMNS + x)
    return f"#{data[at : at + 3].hex()}"
