"""What was handed in: notebooks, folders and zip files, Moodle's and Canvas's too, as one submission a student.

Names, folders and archives are strangers' work: nothing is unpacked to disk, no link is followed, and what is too
large, too deep or no file costs its own submission a reason in words.
"""

import io
import os
import re
import stat
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dts_mini.core.errors import FileError

LARGEST = 20 * 2**20  # of a notebook
LARGEST_ZIP = 30 * 2**20  # of a zip file that a student packed
MOST_FILES = 20_000  # in a folder or a zip file
DEEPEST = 12
MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)", re.DOTALL)
CANVAS = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>.+)", re.DOTALL)
HIDDEN = re.compile(r"\.|__MACOSX$")


@dataclass(frozen=True)
class File:
    """A notebook on disk, or a member of a zip file; ``zipped``: the names that lead to it in zip files."""

    name: str
    path: Path
    zipped: tuple[str, ...] = ()

    def read(self) -> bytes:
        """Its bytes; FileError in words where they are not to be had."""
        if not self.zipped:
            return _bytes(self.path, LARGEST)
        with _archive(self.path, self.zipped[:-1]) as archive:
            return _member(archive, self.zipped[-1], LARGEST)


@dataclass
class Submission:
    """What one student handed in. ``name`` is fit for a file, and no two are the same; ``id``: Moodle's or Canvas's."""

    name: str
    id: str = ""
    files: list[File] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def gather(paths: Iterable[Path]) -> list[Submission]:
    """The submissions in these files, folders and zip files, by name.

    A notebook that is named is one submission. In a folder or a zip file those of a folder in it are one student's.
    """
    singles, students = [], []
    for path in dict.fromkeys(Path(os.path.abspath(path)) for path in paths):
        found: dict[tuple[str, str], Submission] = {}
        if path.is_dir() and not path.is_symlink():
            entries = _walk(path)
        elif path.suffix.lower() == ".zip" and path.is_file():
            entries = _zipped(path, (), named=True)
        else:
            entries = [((path.name,), File(readable(path.name), path))]
        for parts, entry in entries:
            name, id_ = student(parts)
            one = found.setdefault((name, id_), Submission(name, id_))
            (one.reasons if isinstance(entry, str) else one.files).append(entry)
        for one in found.values():
            (students if path.is_dir() or path.suffix.lower() == ".zip" or one.id else singles).append(one)
    merged: dict[tuple[str, str], Submission] = {}
    for one in students:
        same = merged.setdefault((one.name, one.id), one)
        if same is not one:
            same.files += one.files
            same.reasons += one.reasons
    for one, name in zip(singles, told_apart([one.files[0].path for one in singles]), strict=True):
        one.name = name
    return named([*merged.values(), *singles])


def student(parts: Sequence[str]) -> tuple[str, str]:
    """(name, number) of the student to whom a path in a folder or a zip file belongs."""
    first = readable(parts[0])
    if found := MOODLE.fullmatch(first):
        return found["name"], found["id"]
    if (len(parts) == 1 or first.lower().endswith(".zip")) and (found := CANVAS.fullmatch(first)):
        return found["name"], found["id"]
    return (first if len(parts) > 1 else PurePosixPath(first).stem or first), ""


def told_apart(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its own, with those of as many folders before it as tell it from all others."""
    depths = [1] * len(paths)
    for _ in range(max((len(path.parts) for path in paths), default=0)):
        names = ["-".join(map(readable, [*p.parts[1:][-d:-1], p.stem])) for p, d in zip(paths, depths, strict=True)]
        count = [sum(name.casefold() == other.casefold() for other in names) for name in names]
        if max(count) == 1:
            return names
        depths = [depth + (many > 1) for depth, many in zip(depths, count, strict=True)]
    return [readable(path.stem) for path in paths]


def named(submissions: list[Submission]) -> list[Submission]:
    """The same, in order, with names that no two share and that any system takes as a file's."""
    taken: set[str] = set()
    for one in sorted(submissions, key=lambda one: (one.name, one.id)):
        plain = re.sub(r'[/\\:*?"<>|]|\s+', " ", "".join(c if c.isprintable() else " " for c in one.name))
        plain = " ".join(plain.split())[:80].strip(". ") or "nameless"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        one.name = name
    return sorted(submissions, key=lambda one: one.name.casefold())


def readable(name: str) -> str:
    """A file's name as text. Bytes that are not UTF-8 were Latin-1 on the system that they come from."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("latin-1")
    return unicodedata.normalize("NFC", name)


# --- folders and archives ---

Entry = tuple[tuple[str, ...], File | str]


def _walk(folder: Path) -> Iterator[Entry]:
    """(path within the folder, the notebook, or why there is none) of all files; no link is followed."""
    waiting: list[tuple[str, ...]] = [()]
    seen = 0
    while waiting:
        parts = waiting.pop()
        try:
            with os.scandir(folder.joinpath(*parts)) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield parts or (folder.name,), f"a folder cannot be read ({error.strerror})"
            continue
        for entry in inside:
            here = (*parts, entry.name)
            if HIDDEN.match(entry.name):
                continue
            seen += 1
            if seen > MOST_FILES:
                yield here, f"stands beyond the first {MOST_FILES} files"
                return
            if entry.is_symlink():
                yield here, f"{readable(entry.name)}: is a link, not a file"
            elif entry.is_dir(follow_symlinks=False):
                if len(here) > DEEPEST:
                    yield here, f"has folders in folders, more than {DEEPEST} deep: they were not searched"
                else:
                    waiting.append(here)
            else:
                yield from _entry(here, Path(entry.path), ())


def _entry(parts: tuple[str, ...], path: Path, zipped: tuple[str, ...]) -> Iterator[Entry]:
    """What a file within a folder or a zip file is: a notebook, an archive of them, or neither."""
    name = readable(parts[-1])
    if name.lower().endswith(".ipynb"):
        yield parts, File(name, path, zipped)
    elif name.lower().endswith(".zip") and len(zipped) < 2:
        for inner, entry in _zipped(path, zipped):
            yield (parts[0], *parts[1:-1], *inner) if len(parts) > 1 else (_stem(parts[0]), *inner), entry


def _stem(name: str) -> str:
    """A zip file that a student handed in alone stands for the student's folder."""
    return name if MOODLE.fullmatch(name) or CANVAS.fullmatch(name) else name[:-4]


def _zipped(path: Path, zipped: tuple[str, ...], *, named: bool = False) -> Iterator[Entry]:
    """The entries of a zip file; ``named``: the one that was asked for, and so not a student's own."""
    where = readable(PurePosixPath(zipped[-1]).name if zipped else path.name)
    try:
        if not named:
            with _archive(path, zipped[:-1]) if zipped else nullcontext() as archive:
                data = _member(archive, zipped[-1], LARGEST_ZIP) if zipped else _bytes(path, LARGEST_ZIP)
            if data.count(b"PK\x01\x02") > MOST_FILES:
                raise FileError(f"holds more than {MOST_FILES} files")
        with _archive(path, zipped) as archive:
            members = [member.filename for member in archive.infolist() if not member.is_dir()]
    except FileError as error:
        yield (where,), f"{where}: {error}"
        return
    names = [tuple(p for p in re.split(r"[/\\]", member) if p not in ("", ".", "..")) for member in members]
    # A folder that was packed as a whole stands for the zip file.
    packed = {parts[0] for parts in names if parts} == {where[:-4]} and all(len(parts) > 1 for parts in names)
    for number, (parts, member) in enumerate(zip(names, members, strict=True)):
        parts = parts[packed:]
        if not parts or any(HIDDEN.match(part) for part in parts):
            continue
        if number >= MOST_FILES or len(parts) > DEEPEST:
            yield parts[:2], f"{where}: too many files, or folders too deep: not all were searched"
        else:
            yield from _entry(parts, path, (*zipped, member))


@contextmanager
def _archive(path: Path, zipped: Sequence[str]) -> Iterator[zipfile.ZipFile]:
    """A zip file on disk, or one in it; FileError when it is none."""
    with _opened(path) as source:
        try:
            archive = zipfile.ZipFile(source)
            for name in zipped:
                archive = zipfile.ZipFile(io.BytesIO(_member(archive, name, LARGEST_ZIP)))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"cannot be read as a zip file ({error})") from error
        yield archive


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    try:
        with archive.open(name) as member:
            data = member.read(most + 1)
    except Exception as error:  # a damaged stream: each method of compression has an error of its own
        raise FileError(f"cannot be unpacked ({type(error).__name__}: {error})") from error
    if len(data) > most:
        raise FileError(f"is larger than {most // 2**20} MiB")
    return data


def _opened(path: Path) -> io.BufferedReader:
    """A regular file, opened for reading; FileError for anything else (a link, a pipe that never ends)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FileError("there is no such file") from error
    except OSError as error:
        raise FileError(
            "is a link, not a file" if path.is_symlink() else f"cannot be read ({error.strerror})"
        ) from error
    except ValueError as error:  # a null byte in the name
        raise FileError("there is no such file") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError("is no file")
    return os.fdopen(handle, "rb")


def _bytes(path: Path, most: int) -> bytes:
    with _opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FileError(f"is larger than {most // 2**20} MiB: clear its outputs and save it again")
    return data
