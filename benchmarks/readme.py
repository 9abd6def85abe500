"""The tables of ``benchmarks/README.md``, written from what is published in ``data/``: ``python -m benchmarks.readme``."""

from pathlib import Path

from benchmarks import compress, scale
from dts_mini.core.file import read_json, write_bytes
from dts_mini.results import fill

README = Path(__file__).parent / "README.md"


def blocks() -> dict[str, str]:
    """The Markdown of each block of the README, by name."""
    return {"compress": compress.markdown(read_json(compress.PATH)), "scale": scale.markdown(read_json(scale.PATH))}


if __name__ == "__main__":
    write_bytes(fill(README.read_text(), blocks()).encode(), README, overwrite=True)
