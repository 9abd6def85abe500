"""The Hugging Face Hub for deltas: pushed with a model card that is written from their manifests, pulled and checked.

The card says what a stranger must know: what base the deltas were made for, how they were made, what they weigh.
Access and cache are huggingface_hub's (``hf auth login``, ``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from dts_mini.core.container import decode
from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import read_bytes, write_bytes

SUFFIX = ".dts.safetensors"
REFUSED = {
    401: "log in (hf auth login)",
    403: "log in as someone who may write there",
    429: "it asks to wait: try again in some minutes",
}


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
    with _hub(repo) as hub:
        api = hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        sent = [hub.CommitOperationAdd(name, data) for name, data in (files | {"README.md": text.encode()}).items()]
        return api.create_commit(repo, sent, commit_message=f"Upload {', '.join(files)}").commit_url


def pull(
    repo: str, out: str | Path, *, name: str | None = None, revision: str | None = None, overwrite: bool = False
) -> str:
    """Fetches a delta of a repository into the file ``out``; returns the commit that it is of.

    ``name``: which, where there are several. Offline it comes from huggingface_hub's cache. Raises FileError for a
    repository, revision or file that is not there or cannot be reached, and for a file that is no whole delta.
    """
    with _hub(repo) as hub:
        pattern = name or f"*{SUFFIX}"
        folder = Path(hub.snapshot_download(repo, allow_patterns=[pattern], revision=revision))
    held = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
    found = [path for path in held if fnmatchcase(path, pattern)]  # the cache may hold more than was asked for
    if len(found) != 1:
        what = f"holds {len(found)} deltas ({', '.join(found)})" if found else f"holds no {pattern}"
        raise FileError(f"{repo}: {what}; name one that is there (--name)")
    data = read_bytes(folder / found[0])
    decode(data, f"{repo}/{found[0]}")
    write_bytes(data, out, overwrite=overwrite)
    return folder.name


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
    return f"| {name} | {manifest['method']} | {settings} | {size:,} | {size / model:.2%} |"


@contextmanager
def _hub(repo: str) -> Iterator:
    """The library, and its errors in our words."""
    try:
        import huggingface_hub as hub  # of the extra "full", and slow to import
        from huggingface_hub import errors
    except ImportError as error:
        raise DTSError("push and pull need huggingface_hub: pip install 'dts_mini[full]'") from error
    try:
        yield hub
    except errors.HFValidationError as error:
        raise FileError(f"{repo}: is no name of a repository; write OWNER/NAME") from error
    except errors.RevisionNotFoundError as error:
        raise FileError(f"{repo}: there is no such revision; look it up on the Hub") from error
    except errors.RepositoryNotFoundError as error:
        raise FileError(
            f"{repo}: there is no such repository, or it is not yours to see; check the name, log in (hf auth login)"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        refusal = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__  # the reason for the cache
        if isinstance(refusal, errors.HfHubHTTPError):
            code = refusal.response.status_code
            mend = REFUSED.get(code, "try again later")
            raise FileError(f"{repo}: the Hub refused (status {code}); {mend}") from error
        raise FileError(f"{repo}: the Hub cannot be reached, and the cache lacks it; connect and try again") from error
    except errors.LocalTokenNotFoundError as error:
        raise FileError(f"{repo}: nobody is logged in; log in (hf auth login)") from error
    except (errors.HTTPError, ConnectionError) as error:
        raise FileError(f"{repo}: the Hub cannot be reached ({error}); connect and try again") from error
