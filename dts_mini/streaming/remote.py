"""Names on the Hugging Face Hub in the place of paths: ``OWNER/NAME``, or ``OWNER/NAME@REVISION``.

Access and cache are huggingface_hub's (``hf auth login``, ``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE``).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dts_mini.core.errors import FileError, needs

FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
NAME = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*?)(?:@(?P<revision>[\w.][\w./-]*))?")
SUFFIXES = (".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt")
REFUSED = {
    401: "log in (hf auth login)",
    403: "log in as someone who may write there",
    429: "it asks to wait: try again in some minutes",
}


def named(path: str | Path) -> tuple[str, str | None] | None:
    """Repository and revision (or None) that a path stands for, or None where it is one: what is there is never a name.

    >>> named("google/vit@main"), named("models/vit.safetensors"), named("/tmp")
    (('google/vit', 'main'), None, None)
    """
    found = NAME.fullmatch(str(path))
    if not found or Path(path).suffix in SUFFIXES or Path(path).exists():
        return None
    return found["repo"], found["revision"]


def located(path: str | Path) -> Path:
    """The path; of a name on the Hub the folder of huggingface_hub's cache that holds the repository's files.

    Fetched are a checkpoint in safetensors, or else in pickles, and what lies beside it, of the top folder alone.
    FileError where the repository or the revision is not there or cannot be reached.
    """
    if not (name := named(path)):
        return Path(path)
    repo, revision = name
    try:
        with hub(repo, f"{path}, which is no path here but perhaps a name on the Hub,") as library:
            which = {"revision": revision, "ignore_patterns": "*/*"}
            folder = Path(library.snapshot_download(repo, allow_patterns=list(FILES), **which))
            if not any(folder.glob("*.safetensors")):
                folder = Path(
                    library.snapshot_download(repo, allow_patterns=["pytorch_model*", "adapter_model*"], **which)
                )
            return folder
    except FileError as error:
        raise FileError(f"{path}: there is no such path here; as a name on the Hub, {error}") from error


@contextmanager
def hub(repo: str, what: str) -> Iterator:
    """The library, and its errors in our words; ``what`` needs it."""
    needs("hub", what, "huggingface_hub")
    import huggingface_hub as library  # slow to import
    from huggingface_hub import errors

    try:
        yield library
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
