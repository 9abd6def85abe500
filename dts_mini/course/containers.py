"""Containers, where there is no bubblewrap (macOS): docker's, podman's or Apple's, from an image without an exercise.

Tried by their command lines and what their image is built from, not yet on such a machine: an engine that refuses an
option makes no box, and then nothing is graded.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from dts_mini.core.errors import DTSError

KINDS = ("docker", "podman", "container")
PACKAGE = Path(__file__).resolve().parents[1]
HELD = ("wire.py", "raised.py", "learned.py", "worker.py")  # all that a box holds of the course
PYTHON = "/usr/local/lib/python3.12"
PATH = json.dumps(["/course", PYTHON, f"{PYTHON}/lib-dynload", f"{PYTHON}/site-packages"])
LIBRARIES = ("constriction", "ipython", "numpy", "safetensors", "scipy", "torch", "xxhash")
BUILD = """FROM python:3.12-slim
COPY constraints.txt /
RUN pip install --no-cache-dir -c /constraints.txt {libraries}
COPY dts_mini /course/dts_mini
"""


def options(kind: str, name: str) -> list[str]:
    """The options of ``docker run``, ``podman run`` or Apple's ``container run``."""
    given = ["run", "--rm", "-i", "--name", name, "--network", "none", "--read-only", "--cap-drop", "ALL"]
    given += ["--user", "65534:65534", "--memory", "4g", "--env", "OMP_NUM_THREADS=1"]
    if kind == "container":  # a virtual machine of its own
        return [*given, "--ulimit", "nproc=64", image()]
    return [*given, "--pids-limit", "64", "--security-opt", "no-new-privileges", image()]


@cache
def image() -> str:
    """The image's name: another one for every change of what a box holds."""
    digest = hashlib.sha256()
    for path in sorted(_held()):
        digest.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return f"dts-mini-grade:{digest.hexdigest()[:12]}"


def _held() -> list[Path]:
    """The package's files that a box may hold: all but the course's, and of the course those that run there."""
    files = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "course" not in path.parents]
    return files + [PACKAGE / "course" / name for name in HELD]


def build_context(folder: Path) -> None:
    """What an image is built from, without an exercise in it."""
    for path in _held():
        there = folder / "dts_mini" / path.relative_to(PACKAGE)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, there)
    shutil.copyfile(PACKAGE.parent / "constraints.txt", folder / "constraints.txt")
    (folder / "Dockerfile").write_text(BUILD.format(libraries=" ".join(LIBRARIES)))


def found() -> tuple[str, str]:
    """(kind, program) of the engine that this machine has; DTSError in a line where there is none, or no image."""
    for kind in KINDS:
        if program := shutil.which(kind):
            if subprocess.run([program, "image", "inspect", image()], capture_output=True).returncode:
                raise DTSError(
                    f"no box can be made: {kind} has no image {image()}; make it once, some minutes and a network: "
                    "python -m dts_mini.course.containers; --unsafe grades without"
                )
            return kind, program
    raise DTSError(
        "no box can be made: this system has no bubblewrap; install docker, podman or Apple's container; "
        "--unsafe grades without"
    )


def main() -> int:
    """``python -m dts_mini.course.containers``: makes the image for machines without bubblewrap."""
    program = next(filter(None, map(shutil.which, KINDS)), None)
    if program is None:
        print("there is no docker, podman or container on this machine", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        build_context(Path(folder))
        return subprocess.run([program, "build", "-t", image(), folder]).returncode


if __name__ == "__main__":
    sys.exit(main())
