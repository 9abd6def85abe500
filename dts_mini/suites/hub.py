"""Files of the Hugging Face Hub: pinned to a commit, fetched once, checked, and with errors that say what to do.

The cache, the requests and the progress bars are huggingface_hub's. What is added here: every repository is pinned to
the commit that was first seen (``pins``), a file that was cut off goes on where it stopped, in the next run too, its
bytes are checked against the digest that the Hub promised, and each failure names the file and the mend.
"""

import errno
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers

from dts_mini.core.errors import FileError
from dts_mini.core.file import read_bytes, write_json

AGAIN = "run the same command again, it goes on where it stopped"


@dataclass(frozen=True)
class Repo:
    """A repository of the Hub; ``kind`` is model or dataset."""

    name: str
    kind: str = "model"

    def __str__(self) -> str:
        return f"datasets/{self.name}" if self.kind == "dataset" else self.name


class Hub:
    """The Hub as a suite sees it: repositories at fixed commits.

    ``pins`` is a JSON file {repository: commit}; a repository that it lacks is pinned, at its first use, to the newest
    commit of its main branch, and from then on only that commit is read. ``known`` names commits in advance, whole or
    by their first digits: those are pinned instead of the newest. ``tries`` and ``wait`` (seconds, doubled each
    time) are for a Hub that answers 429, too many requests, or 5xx.
    """

    def __init__(
        self,
        pins: str | Path,
        *,
        cache: str | Path | None = None,
        endpoint: str | None = None,
        known: Mapping[str, str] | None = None,
        tries: int = 5,
        wait: float = 2,
    ) -> None:
        self.pins, self.endpoint, self.tries, self.wait = Path(pins), endpoint, tries, wait
        self.cache = Path(cache or constants.HF_HUB_CACHE)
        self.known = dict(known or {})
        self.pinned: dict[str, str] = json.loads(read_bytes(self.pins)) if self.pins.exists() else {}
        self._files: dict[Repo, dict[str, int]] = {}
        self._checked: set[Path] = set()

    def commit(self, repo: Repo) -> str:
        """The commit (40 hex digits) that a repository is pinned to."""
        if str(repo) not in self.pinned:
            known = self.known.get(str(repo), "")
            self.pinned[str(repo)] = known if len(known) == 40 else self._first(repo, known)
            self.pins.parent.mkdir(parents=True, exist_ok=True)
            write_json(dict(sorted(self.pinned.items())), self.pins, overwrite=True)
        return self.pinned[str(repo)]

    def repin(self) -> None:
        """Forgets the pinned commits: each repository is pinned to its newest one when it is used next."""
        self.pins.unlink(missing_ok=True)
        self.pinned, self.known, self._files = {}, {}, {}

    def files(self, repo: Repo) -> dict[str, int]:
        """The files of a repository at its commit, with their sizes in bytes; offline, those that the cache holds."""
        if repo not in self._files:
            if constants.HF_HUB_OFFLINE:
                folder = self._folder(repo) / "snapshots" / self.commit(repo)
                found = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
                if not found:
                    raise FileError(
                        f"{repo} at {self.commit(repo)[:8]} is not in the cache ({self.cache}), and HF_HUB_OFFLINE is "
                        "set: unset it, or copy the cache of a machine with a network"
                    )
            else:
                info = self._ask(repo, "", lambda api: api.repo_info(
                    repo.name, repo_type=repo.kind, revision=self.commit(repo), files_metadata=True
                ))  # fmt: skip
                found = {entry.rfilename: entry.size or 0 for entry in info.siblings}
            self._files[repo] = found
        return self._files[repo]

    def cached(self, repo: Repo, file: str) -> Path | None:
        """Where a file lies in the cache, or None."""
        found = huggingface_hub.try_to_load_from_cache(
            repo.name, file, cache_dir=self.cache, revision=self.commit(repo), repo_type=repo.kind
        )
        return Path(found) if isinstance(found, str) else None

    def fetch(self, repo: Repo, file: str) -> Path:
        """The path of a file, downloaded if need be and whole; FileError, naming file and mend, where it fails."""
        path = self.cached(repo, file)
        if path is None:
            path = self._download(repo, file)
        if path not in self._checked and not intact(path):
            path.resolve().unlink()  # the bytes are worthless; what is fetched anew takes their place
            path.unlink(missing_ok=True)
            path = self._download(repo, file, damaged=True)
            if not intact(path):
                raise FileError(f"{repo}/{file}: arrives damaged again and again; report it to whoever keeps the file")
        self._checked.add(path)
        return path

    def missing(self, wanted: Iterable[tuple[Repo, str]]) -> dict[tuple[Repo, str], int]:
        """Those of the files that are not in the cache yet, with their bytes."""
        return {(repo, file): self.files(repo).get(file, 0) for repo, file in wanted if not self.cached(repo, file)}

    def fetch_all(self, wanted: Iterable[tuple[Repo, str]]) -> None:
        """Downloads files, once it is sure that the disk has room for all of them."""
        missing = self.missing(wanted)
        check_space(sum(missing.values()), self.cache)
        for repo, file in missing:
            self.fetch(repo, file)

    def _download(self, repo: Repo, file: str, *, damaged: bool = False) -> Path:
        if constants.HF_HUB_OFFLINE:
            why = "was damaged in the cache and removed" if damaged else f"is not in the cache ({self.cache})"
            raise FileError(
                f"{repo}/{file}: {why}, and HF_HUB_OFFLINE is set: unset it and {AGAIN}, or copy the file from a "
                "machine with a network"
            )
        return self._ask(repo, file, lambda api: self._get(api, repo, file))

    def _get(self, api: huggingface_hub.HfApi, repo: Repo, file: str) -> Path:
        """Fetches a file into the cache's blobs, from where an earlier run left off, and lets the library link it."""
        where = {"repo_type": repo.kind, "revision": self.commit(repo)}
        url = huggingface_hub.hf_hub_url(repo.name, file, endpoint=self.endpoint, **where)
        about = huggingface_hub.get_hf_file_metadata(url, endpoint=self.endpoint)
        blobs = self._folder(repo) / "blobs"
        if about.etag and about.size and not (blobs / about.etag).exists():
            blobs.mkdir(parents=True, exist_ok=True)
            part = blobs / f"{about.etag}.part"
            with open(part, "ab") as stream:
                headers, start = build_hf_headers(), stream.tell()
                http_get(
                    url, stream, resume_size=start, headers=headers, expected_size=about.size, displayed_filename=file
                )
            part.replace(blobs / about.etag)
        return Path(api.hf_hub_download(repo.name, file, cache_dir=self.cache, **where))

    def _first(self, repo: Repo, known: str) -> str:
        """The newest commit whose name begins with ``known``; offline, of those in the cache."""
        if constants.HF_HUB_OFFLINE:
            ref, kept = self._folder(repo) / "refs" / "main", self._folder(repo) / "snapshots"
            found = [ref.read_text().strip()] if ref.exists() else []
            found += [path.name for path in sorted(kept.glob(f"{known}*"))] if known else []
        elif not known:
            found = [self._ask(repo, "", lambda api: api.repo_info(repo.name, repo_type=repo.kind)).sha]
        else:
            commits = self._ask(repo, "", lambda api: api.list_repo_commits(repo.name, repo_type=repo.kind))
            found = [commit.commit_id for commit in commits]
        if named := [commit for commit in found if commit.startswith(known)]:
            return named[0]
        if constants.HF_HUB_OFFLINE:
            raise FileError(
                f"{repo} is not in the cache ({self.cache}), and HF_HUB_OFFLINE is set: unset it, or copy the cache of "
                "a machine with a network"
            )
        raise FileError(
            f"{repo}: the commit {known} that this suite was written for is gone from the Hub; --repin takes the newest"
        )

    def _folder(self, repo: Repo) -> Path:
        return self.cache / repo_folder_name(repo_id=repo.name, repo_type=repo.kind)

    def _ask(self, repo: Repo, file: str, call):
        """``call(api)``, again after a pause where the Hub asks for one; other failures in words."""
        what = f"{repo}/{file}" if file else str(repo)
        pin = self.pinned.get(str(repo), "main")[:8]
        for attempt in range(self.tries):
            try:
                return call(huggingface_hub.HfApi(endpoint=self.endpoint))
            except errors.RevisionNotFoundError as error:
                raise FileError(
                    f"{what}: the commit {pin} that {self.pins} pins is gone from the Hub; results made with it cannot "
                    f"be mixed with newer ones: delete its line there (or all, with --repin) to take the newest commit"
                ) from error
            except errors.GatedRepoError as error:
                raise FileError(
                    f"{what}: asks you to accept its terms on its page first, then: hf auth login"
                ) from error
            except errors.RepositoryNotFoundError as error:
                here = "" if not Path(repo.name).is_dir() else "; the folder of that name here is to be uploaded first"
                raise FileError(
                    f"{what}: the Hub has no such {repo.kind}, or not for you (hf auth login){here}"
                ) from error
            except errors.HFValidationError as error:
                raise FileError(
                    f"{what}: is no name of a repository of the Hub, OWNER/NAME ({_first(error)})"
                ) from error
            except (errors.EntryNotFoundError, errors.HTTPError, OSError) as error:
                status, pause = _status(error)
                if status == 404 or isinstance(error, errors.RemoteEntryNotFoundError):
                    raise FileError(
                        f"{what}: there is no such file at commit {pin}; was the repository changed?"
                    ) from error
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise FileError(
                        f"{what}: the disk of {self.cache} is full; make room, or set HF_HOME to another disk, "
                        f"and {AGAIN}"
                    ) from error
                if status not in (429, 500, 502, 503, 504):
                    raise FileError(
                        f"{what}: could not be downloaded ({_first(error)}); check the network and {AGAIN}"
                    ) from error
                if attempt + 1 == self.tries:
                    why = "asks for fewer requests (429)" if status == 429 else f"answers {status}"
                    raise FileError(
                        f"{what}: the Hub {why}, {self.tries} times; wait some minutes and {AGAIN}"
                    ) from error
                time.sleep(pause if pause is not None else self.wait * 2**attempt)
        raise AssertionError("unreachable")


def split_files(hub: Hub, repo: Repo, split: str, config: str, ending: str) -> list[tuple[Repo, str]]:
    """The files of a data set's split, in order, within the folder ``config`` if it has one; FileError for none."""

    def belongs(file: str) -> bool:
        *folders, name = file.split("/")
        within = not config or config in folders
        return within and (name.startswith((f"{split}-", f"{split}.")) or split in folders)

    found = sorted(file for file in hub.files(repo) if file.endswith(ending) and belongs(file))
    if not found:
        raise FileError(
            f"{repo} at {hub.commit(repo)[:8]} has no {ending} file of the split {split!r}"
            + (f" in {config}/" if config else "")
            + "; was the repository changed? Another commit can be pinned in its manifest"
        )
    return [(repo, file) for file in found]


def check_space(needed: int, folder: Path) -> None:
    """FileError unless the disk of ``folder`` has room for ``needed`` bytes."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise FileError(
            f"{folder}: {needed / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free; make room, or set "
            "HF_HOME (downloads) or --out (results) to another disk"
        )


def intact(path: Path) -> bool:
    """Whether a file of the cache has the bytes that its blob's name promises: a sha256, or git's sha1 of small files.

    Caches without symbolic links do not keep the promise, and pass.
    """
    blob = path.resolve()
    promised = blob.name
    if blob.parent.name != "blobs" or len(promised) not in (40, 64):
        return True
    digest = hashlib.sha256() if len(promised) == 64 else hashlib.sha1(f"blob {blob.stat().st_size}\0".encode())
    with open(blob, "rb") as file:
        while data := file.read(1 << 22):
            digest.update(data)
    return digest.hexdigest() == promised


def _status(error: BaseException) -> tuple[int | None, float | None]:
    """The HTTP status behind an error, if any, and the seconds that the answer asks to wait."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            after = response.headers.get("Retry-After", "")
            return response.status_code, float(after) if after.isdigit() else None
        error = error.__cause__
    return None, None


def _first(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
