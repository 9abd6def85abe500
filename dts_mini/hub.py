"""The Hugging Face Hub for deltas: pushed with a model card that is written from their manifests, pulled and checked.

The card says what a stranger must know: what base the deltas were made for, how they were made, what they weigh.
Access and cache are huggingface_hub's: ``dts_mini.streaming.remote``.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dts_mini.core.container import decode
from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import read_bytes, write_bytes
from dts_mini.streaming.remote import hub, named

SUFFIX = ".dts.safetensors"


def push(paths: Sequence[str | Path], repo: str, *, base_model: str | None = None, private: bool = False) -> str:
    """Uploads deltas over one base to a model repository, with their card, in one commit; returns its address.

    ``repo``: owner/name, made where it does not exist. ``base_model``: the base's own id on the Hub, if it has one.
    Raises FileError, before anything is sent, for a file that is no delta or two that go by one name; DTSError for
    deltas of different bases, and for what the Hub refuses.
    """
    files: dict[str, bytes] = {}
    for path in map(Path, paths):
        if path.name in files:
            raise FileError(f"{path}: there are two files of this name; rename one")
        files[path.name] = read_bytes(path)
    text = card({name: decode(data, name)[0] for name, data in files.items()}, repo, base_model)
    with hub(repo, "the Hub") as library:
        api = library.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        sent = [library.CommitOperationAdd(name, data) for name, data in (files | {"README.md": text.encode()}).items()]
        return api.create_commit(repo, sent, commit_message=f"Upload {', '.join(files)}").commit_url


def pull(
    repo: str, out: str | Path, *, name: str | None = None, revision: str | None = None, overwrite: bool = False
) -> str:
    """Fetches a delta of a repository into the file ``out``; returns the commit that it is of.

    ``name``: which, where there are several. Offline it comes from huggingface_hub's cache. Raises FileError for a
    repository, revision or file that is not there or cannot be reached, and for a file that is no whole delta.
    """
    folder, file = _fetched(repo, name, revision)
    data = read_bytes(folder / file)
    decode(data, f"{repo}/{file}")
    write_bytes(data, out, overwrite=overwrite)
    return folder.name


def delta_file(path: str | Path) -> Path:
    """The path; of a name on the Hub, OWNER/NAME or OWNER/NAME@REVISION, that of the repository's only delta.

    FileError as ``pull``.
    """
    if not (name := named(path)):
        return Path(path)
    try:
        folder, file = _fetched(name[0], None, name[1], f"{path}, which is no path here but perhaps a name on the Hub,")
    except FileError as error:
        raise FileError(f"{path}: there is no such path here; as a name on the Hub, {error}") from error
    return folder / file


def _fetched(repo: str, name: str | None, revision: str | None, what: str = "the Hub") -> tuple[Path, str]:
    """The folder of a commit in the cache, and the one delta in it that is meant."""
    with hub(repo, what) as library:
        pattern = name or f"*{SUFFIX}"
        folder = Path(library.snapshot_download(repo, allow_patterns=[pattern], revision=revision))
    held = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
    found = [path for path in held if fnmatchcase(path, pattern)]  # the cache may hold more than was asked for
    if len(found) != 1:
        what = f"holds {len(found)} deltas ({', '.join(found)})" if found else f"holds no {pattern}"
        raise FileError(f"{repo}: {what}; name one that is there (dts-mini pull --name)")
    return folder, found[0]


def card(manifests: Mapping[str, dict], repo: str, base_model: str | None = None) -> str:
    """The model card (Markdown, with the Hub's header) of deltas, by file name, over one base; DTSError if not one."""
    bases = {manifest["base"]: name for name, manifest in manifests.items()}
    if len(bases) != 1:
        raise DTSError(f"the deltas are not of one base: {' and '.join(bases.values())}; push them apart")
    ((base, first),) = bases.items()
    rows = "\n".join(_row(name, manifest) for name, manifest in manifests.items())
    origin = f"[{base_model}](https://huggingface.co/{base_model})" if base_model else "a base model"
    relation = f"base_model: {base_model}\n" if base_model else ""
    return f"""---
library_name: dts_mini
{relation}tags:
- dts_mini
- model-merging
- task-vector
---

# {repo.split("/")[-1]}

What fine-tuning added to {origin}, compressed by `dts_mini`: a truncated singular value decomposition whose
vectors hold a few values each (DTS, [arXiv 2512.01461](https://arxiv.org/abs/2512.01461)). With that base each file
gives an approximate expert; without it, nothing.

| file | method | settings | bytes | share of the float32 expert |
|---|---|---|---|---|
{rows}

The base must be exactly the one of fingerprint `{base}`; `dts_mini` refuses any other.

```sh
dts-mini pull {repo} --name {first} --out {first}
dts-mini rebuild --base BASE.safetensors --delta {first} --out EXPERT.safetensors
```
"""


def _row(name: str, manifest: dict) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in manifest["settings"].items())
    size, model = manifest["storage"]["file"], manifest["storage"]["model"]
    return f"| {name} | {manifest['method']} | {settings} | {size:,} | {size / (model or 1):.2%} |"
