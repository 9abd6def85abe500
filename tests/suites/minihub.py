"""A miniature Hub: the repositories of the real suite with their names, file names and formats, and tiny contents.

``write`` lays it out as huggingface_hub's cache; ``serve`` answers as the Hub does, over HTTP on this machine alone,
with faults on demand.
"""

import hashlib
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

from dts_mini.measures.cells import GROUPS, cells_of
from dts_mini.suites.clip.names import BASES, TASKS, expert_repo

ARCHITECTURE = "clip-vit-b-32"
COMMIT = "c0ffee" * 6 + "c0de"
SIZE, WORDS = 32, 24  # pixels, tokens
CONFIG = {
    "projection_dim": 24,
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,  # as deep as the mini suite's, whose notebooks name layers
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 16,
        "hidden_act": "quick_gelu",
    },
    "text_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": WORDS,
        "vocab_size": 49408,
        "hidden_act": "quick_gelu",
    },
}
IMAGES = 30  # a split


def clip_state(seed: int = 0, config: dict = CONFIG) -> dict[str, torch.Tensor]:
    """A random CLIP in transformers' names."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    return {name: tensor.clone() for name, tensor in CLIPModel(CLIPConfig(**config)).state_dict().items()}


def expert_state(base: dict[str, torch.Tensor], seed: int, *, prefix: bool) -> dict[str, torch.Tensor]:
    """A ``CLIPVisionModel`` near ``base``, in the names of older (with prefix) or newer transformers."""
    generator = torch.Generator().manual_seed(seed)
    vision = {name: tensor for name, tensor in base.items() if name.startswith("vision_model.")}
    return {
        name if prefix else name.removeprefix("vision_model."): t + 0.05 * torch.randn(t.shape, generator=generator)
        for name, t in vision.items()
    }


def pictures(task, seed: int) -> tuple[list[bytes], list[int]]:
    """Pictures of other sizes than the model's, and their labels."""
    rng = np.random.default_rng(seed)
    labels, found = rng.integers(0, task.number, IMAGES), []
    for label in labels:
        noise = rng.integers(0, 200, (40, 36, 3)) + label % 55
        with BytesIO() as file:
            Picture.fromarray(noise.astype(np.uint8)).save(file, "PNG")
            found.append(file.getvalue())
    return found, labels.tolist()


def parquet(task, split: str, seed: int) -> bytes:
    """A data set's file: pictures, labels, class names in the schema."""
    names = list(task.classes) or [f"class_{number:03d}" for number in range(task.number)]
    images, labels = pictures(task, seed)
    columns = {task.image: [{"bytes": image, "path": None} for image in images], task.label: labels}
    features = Features({task.image: Image(), task.label: ClassLabel(names=names)})
    with BytesIO() as file:
        Dataset.from_dict(columns, features).to_parquet(file)
        return file.getvalue()


def web(task, split: str, seed: int) -> bytes:
    """The same as a web data set: an archive with two files for each picture."""
    with BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for number, (image, label) in enumerate(zip(*pictures(task, seed), strict=True)):
                for ending, content in ((task.image, image), (task.label, str(label).encode())):
                    entry = tarfile.TarInfo(f"{number:04d}.{ending}")
                    entry.size = len(content)
                    archive.addfile(entry, BytesIO(content))
        return file.getvalue()


def contents(tasks: int = 8, config: dict = CONFIG, architecture: str = ARCHITECTURE) -> dict[str, dict[str, bytes]]:
    """The files of every repository that the suite reads: {repository: {file: bytes}}."""
    base = clip_state(config=config)
    found = {
        BASES[architecture]: {
            "config.json": json.dumps(config).encode(),
            "model.safetensors": safetensors.torch.save(base),
        }
    }
    for number, task in enumerate(TASKS[:tasks]):
        state = expert_state(base, number + 1, prefix=number % 2 == 0)
        found[expert_repo(architecture, task)] = {
            "config.json": json.dumps(config["vision_config"]).encode(),
            "model.safetensors": safetensors.torch.save(state),
        }
        folder, (make, ending) = task.config or "data", WRITERS[task.format]
        found[f"datasets/{task.repo}"] = {
            f"{folder}/{name}-00000-of-00001{ending}": make(task, split, 2 * number + (split == "train"))
            for split, name in (("train", "train"), ("test", task.test))
        }
    return found


WRITERS = {"parquet": (parquet, ".parquet"), "webdataset": (web, ".tar")}


def etag(file: str, data: bytes) -> str:
    """The name of a blob: sha256 of large files, git's sha1 of small text."""
    if file.endswith(".json"):
        return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return hashlib.sha256(data).hexdigest()


def folder_of(cache: Path, repo: str) -> Path:
    kind = "datasets" if repo.startswith("datasets/") else "models"
    return cache / f"{kind}--{repo.removeprefix('datasets/').replace('/', '--')}"


def write(cache: Path, repos: dict[str, dict[str, bytes]], commits: dict[str, str] | None = None) -> Path:
    """The repositories as huggingface_hub's cache keeps them: blobs, and a snapshot of links to them."""
    for repo, files in repos.items():
        folder, commit = folder_of(cache, repo), (commits or {}).get(repo, COMMIT)
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(commit)
        (folder / "blobs").mkdir()
        for file, data in files.items():
            blob, link = folder / "blobs" / etag(file, data), folder / "snapshots" / commit / file
            blob.write_bytes(data)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))  # relative, so that a copy is whole
    return cache


@dataclass
class Server:
    """What the Hub holds, what it does wrong, and what it was asked: (method, path, range)."""

    repos: dict[str, dict[str, bytes]]
    commit: str = COMMIT
    commits: dict[str, str] = field(default_factory=dict)  # of repositories whose newest commit is another one
    revoked: set[str] = field(default_factory=set)  # commits that are gone
    busy: int = 0  # answers 429 to so many requests
    cut: int = 0  # hangs up at this byte of a larger file
    spoilt: set[str] = field(default_factory=set)  # files whose bytes arrive altered
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""


@contextmanager
def serve(repos: dict[str, dict[str, bytes]]) -> Iterator[Server]:
    hub = Server(repos)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if "Content_Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            hub.asked.append((self.command, self.path, self.headers.get("Range", "")))
            if hub.busy:
                hub.busy -= 1
                return self.answer(429, Retry_After="0")
            path = self.path.split("?")[0].lstrip("/")
            if path.startswith("api/"):
                kind = next((k for k in ("/tree/", "/commits/") if k in path), "/revision/")
                repo, _, commit = path.removeprefix("api/").removeprefix("models/").partition(kind)
                commit = "" if commit == "main" else commit
            else:
                repo, _, rest = path.partition("/resolve/")
                commit, _, file = rest.partition("/")
            if repo not in hub.repos:
                return self.answer(404, X_Error_Code="RepoNotFound")
            commit = commit or hub.commits.get(repo, hub.commit)
            if commit in hub.revoked:
                return self.answer(404, X_Error_Code="RevisionNotFound")
            files = hub.repos[repo]
            if path.startswith("api/") and kind == "/tree/":
                entries = [
                    {"type": "file", "path": name, "size": len(data), "oid": etag(name, data)}
                    for name, data in files.items()
                ]
                return self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
            if path.startswith("api/") and kind == "/commits/":
                about = {"title": "", "message": "", "date": "2024-05-20T00:00:00.000Z", "authors": []}
                entries = [about | {"id": name} for name in (hub.commit, commit)]
                return self.answer(200, json.dumps(entries).encode(), Content_Type="application/json")
            if path.startswith("api/"):
                siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                about = {"id": repo, "sha": commit, "siblings": siblings}
                return self.answer(200, json.dumps(about).encode(), Content_Type="application/json")
            if file not in files:
                return self.answer(404, X_Error_Code="EntryNotFound")
            data, first = files[file], 0
            if wanted := self.headers.get("Range"):
                first = int(wanted.removeprefix("bytes=").split("-")[0])
            headers = {"ETag": f'"{etag(file, data)}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
            if first:
                headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
            body, status = data[first:], 206 if first else 200
            if file in hub.spoilt:
                body = body[:-1] + bytes([body[-1] ^ 1])
            if self.command == "GET" and hub.cut and len(data) > hub.cut:
                self.answer(status, body[: max(0, hub.cut - first)], Content_Length=str(len(body)), **headers)
                self.close_connection = True
                return None
            return self.answer(status, body, Content_Length=str(len(body)), **headers)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def few_points(patch, *wanted: tuple[str, str]) -> None:
    """Lets the reproduction's curve have these points alone, by method and size, instead of all."""
    few = [cell for cell in cells_of(GROUPS) if (cell.name, cell.size) in wanted]
    assert len(few) == len(wanted)
    patch.setattr("dts_mini.reproduce.cells_of", lambda groups: few)
