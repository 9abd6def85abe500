"""Binder and Colab: where they open this repository, if CITATION.cff says where it is (``repository-code``).

``python -m dts_mini.course.launch`` writes the block between ``<!-- launch -->`` and ``<!-- end -->`` of the README.
"""

import re
import sys
from pathlib import Path

from dts_mini.core.file import write_bytes

ROOT = Path(__file__).parents[2]
UNKNOWN = (
    "Binder and Colab: the badges appear here when `CITATION.cff` names this repository (`repository-code:`, an\n"
    "address at GitHub) and `python -m dts_mini.course.launch` is run."
)


def repository(citation: Path = ROOT / "CITATION.cff") -> str | None:
    """``owner/name`` of the repository at GitHub, None where CITATION.cff does not say it."""
    text = citation.read_text() if citation.exists() else ""
    line = re.search(
        r"^repository-code: *[\"']?https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?[\"']?\s*$", text, re.M
    )
    return line and line[1]


def links(where: str, notebook: str = "") -> dict[str, str]:
    """Addresses that open the learner's ``notebook`` (``02_decomposition``), or else the course, at each service."""
    path = f"notebooks/{notebook}.ipynb" if notebook else "notebooks"
    binder = f"https://mybinder.org/v2/gh/{where}/HEAD?urlpath=lab/tree/{path}"
    colab = path if notebook else "notebooks/00_start_here.ipynb"
    return {"Binder": binder, "Colab": f"https://colab.research.google.com/github/{where}/blob/main/{colab}"}


def colab_cell(where: str | None) -> str:
    """The two lines that a notebook needs at Colab, where it arrives without its repository."""
    address = f"https://github.com/{where}" if where else "ADDRESS"
    return f"!git clone -q --depth 1 {address} dts-course && pip install -q -e ./dts-course\n%cd dts-course"


def badges(where: str | None) -> str:
    """The README's block: two badges, or why there are none."""
    if where is None:
        return UNKNOWN
    images = {
        "Binder": "https://mybinder.org/badge_logo.svg",
        "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
    }
    return " ".join(f"[![Open in {name}]({images[name]})]({url})" for name, url in links(where).items())


def fill(text: str, block: str) -> str:
    """``text`` with the block between its markers replaced."""
    return re.sub(
        r"(<!-- launch -->).*?(<!-- end -->)", lambda m: f"{m[1]}\n\n{block}\n\n{m[2]}", text, flags=re.DOTALL
    )


def main() -> int:
    readme = ROOT / "README.md"
    write_bytes(fill(readme.read_text(), badges(repository())).encode(), readme, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
