"""Where data and notebooks lie: at the top of a checkout; in a wheel, within the package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
CHECKOUT = _PACKAGE.parent if (_PACKAGE.parent / "pyproject.toml").exists() else None
DATA, NOTEBOOKS = ((CHECKOUT or _PACKAGE) / name for name in ("data", "notebooks"))
BUILD = (CHECKOUT or Path()) / "build"  # what a run keeps; beside a wheel, where it was started
