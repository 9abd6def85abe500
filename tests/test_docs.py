"""The pages of docs/: every block of them runs, every option is the code's, every link leads somewhere."""

import inspect
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

import dts_mini
import dts_mini.ours  # DRC becomes known
from dts_mini import compress, reference
from dts_mini.cli import main
from dts_mini.core import merging
from dts_mini.core.compress import METHODS
from dts_mini.peers import PEERS
from dts_mini.reference import modules, prose, public, signature, write
from dts_mini.streaming.checkpoint import open_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MERGES = {path.stem: path for path in (DOCS / "methods").glob("*.md")}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| ", re.MULTILINE)
SLOW = ("compress-your-model", "text-models", "serve", "adapters", "http")
NEEDS = {
    "compress-your-model": "distributed",
    "text-models": "transformers",
    "serve": "transformers",
    "adapters": "peft",
    "http": "tornado",
}


def runnable() -> list:
    """The pages with blocks to run; a page of a merge is run where that merge is registered."""
    merges = {name for name in MERGES if name in merging.MERGES}
    pages = [
        p
        for p in PAGES
        if {language for language, _ in BLOCK.findall(p.read_text())} - {"text"}
        and p.stem not in ("real-suite", "language-suite")  # they run in tests/suites, on a miniature Hub
        and (p.parent.name != "methods" or p.stem in merges | METHODS.keys())
    ]
    mark = lambda path: [pytest.mark.slow] if path.stem in SLOW else []
    return [pytest.param(path, id=path.stem, marks=mark(path)) for path in pages]


@pytest.fixture
def workshop(files, monkeypatch) -> Iterator[Path]:
    """A folder, the current one, with the files that the pages speak of, whole and in shards."""
    for name, source in (("theta_0", files.base), ("expert_a", files.a), ("expert_b", files.b)):
        state = open_checkpoint(source.rename(files.folder / f"{name}.safetensors"))
        shards = {f"model-{i}-of-2.safetensors": sorted(state)[i - 1 :: 2] for i in (1, 2)}
        save_checkpoint(state, files.folder / f"{name}_sharded", shards)
    monkeypatch.chdir(files.folder)
    known = dict(merging.MERGES)
    yield files.folder
    for name in merging.MERGES.keys() - known:  # what a page registers goes with it
        del merging.MERGES[name]


@pytest.fixture
def hub(workshop, monkeypatch):
    """Stands in for the Hub: what is pushed lies in huggingface_hub's cache, from where it is pulled offline."""
    library = pytest.importorskip("huggingface_hub")
    commit = "0" * 40

    class Api:
        def create_repo(self, repo, **options):
            self.folder = workshop / "hub" / f"models--{repo.replace('/', '--')}"
            (self.folder / "refs").mkdir(parents=True)
            (self.folder / "refs" / "main").write_text(commit)

        def create_commit(self, repo, operations, **options):
            (self.folder / "snapshots" / commit).mkdir(parents=True)
            for operation in operations:
                (self.folder / "snapshots" / commit / operation.path_in_repo).write_bytes(operation.path_or_fileobj)
            return SimpleNamespace(commit_url=commit)

    monkeypatch.setattr(library, "HfApi", Api)
    monkeypatch.setattr(library.constants, "HF_HUB_CACHE", str(workshop / "hub"))
    monkeypatch.setattr(library.constants, "HF_HUB_OFFLINE", True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < end, "the scheduler did not start"
        time.sleep(0.2)


@pytest.fixture
def shell():
    """Runs the lines of a shell block: dts-mini in this process, what ends in & in the background until the end."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    running, port = [], free_port()

    def run(text: str) -> None:
        for line in text.replace("\\\n", " ").replace("8786", str(port)).splitlines():
            words = shlex.split(line)
            if words[-1] == "&":
                running.append(subprocess.Popen(words[:-1], env=environment, stderr=subprocess.DEVNULL))
                wait_for(port)
            elif words[0] == "dts-mini":
                assert main(words[1:]) == 0, line
            else:
                subprocess.run(words, env=environment, check=True)

    yield run
    for process in reversed(running):
        process.terminate()
        process.wait()


@pytest.mark.parametrize("page", runnable())
def test_every_block_of_a_page_runs_in_order(page, workshop, shell, request):
    pytest.importorskip(NEEDS.get(page.stem, "torch"))
    if "hub" in page.stem:
        request.getfixturevalue("hub")
    space = {"__name__": "page"}
    for language, text in BLOCK.findall(page.read_text()):
        match language:
            case "sh":
                shell(text)
            case "python":
                exec(compile(text, str(page), "exec"), space)
            case "text":  # what a command prints
                pass
            case _:
                pytest.fail(f"a block in {language!r} cannot be tested")


def options(function) -> dict[str, str]:
    """The keyword-only parameters of a function and their defaults, as Python writes them."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: repr(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", merging.MERGES)
def test_a_merge_has_a_page_with_its_options_defaults_and_source(name):
    text = (DOCS / "methods" / f"{name}.md").read_text()
    assert dict(ROW.findall(text)) == options(merging.MERGES[name])
    for part in ("Formula", "Source", "Options", "Bytes", "When to use it"):
        assert f"\n## {part}\n" in text
    (source,) = re.findall(r"arXiv (\d{4}\.\d{5})", inspect.getdoc(merging.MERGES[name]))
    assert f"https://arxiv.org/abs/{source}" in text


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_a_page_with_its_settings_and_their_defaults(method):
    text = (DOCS / "methods" / f"{method}.md").read_text()
    settings = {field.name: repr(field.default) for field in fields(METHODS[method].Settings)}
    assert dict(ROW.findall(text)) == settings | {"budget": "None"}
    for part in ("Formula", "Source", "Options", "Bytes", "When to use it"):
        assert f"\n## {part}\n" in text


def test_the_page_of_dts_counts_its_bytes_right():
    """k r (m + n) bits of codes, 32 r of singular values, 2 * 32 * 2**k of scales."""
    import torch

    m, n, rank, k = 48, 80, 4, 2
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(m, n, generator=generator)
    delta = compress({"w": torch.zeros(m, n)}, {"w": x}, keep_ratio=0.1)
    assert dts_mini.storage(delta).information == (k * rank * (m + n) + 32 * rank + 2 * 32 * 2**k) // 8


def test_every_peer_stands_in_the_table_of_sources_and_in_that_of_departures():
    for table in (DOCS / "peers.md").read_text().split("## Where they depart from the originals"):
        named = " ".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))
        for peer in PEERS:
            assert re.sub(r"(, .*| INT\d| B3O2)$", "", peer) in named, peer


def test_every_page_is_linked_from_the_first_and_every_link_leads_to_a_file():
    linked = set()
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).is_file(), f"{page}: {target}"
            if page == DOCS / "README.md":
                linked.add((page.parent / target).resolve())
    assert linked == set(PAGES) - {DOCS / "README.md"}


# --- the reference ---


def test_the_reference_has_a_page_for_each_module_and_every_public_name_of_the_package(tmp_path):
    pages = write(tmp_path / "new" / "reference")
    assert len(pages) == len(modules()) + 1
    text = "\n".join(path.read_text() for path in pages)
    for name in dts_mini.__all__:
        assert f"\n## {name}\n" in text and f"too: `dts_mini.{name}`." in text
    assert "### TaskDelta.save" in text
    for link in re.findall(r"\]\(([^)]+)\)", pages[-1].read_text()):
        assert (pages[-1].parent / link).is_file()


def test_a_signature_of_the_reference_is_read_in_lines_without_modules():
    text = signature("compress", dts_mini.compress)
    assert text.startswith("compress(\n    base: Mapping[str, Tensor],\n") and "\n    *,\n" in text
    assert text.endswith("**settings,\n) -> TaskDelta") and "<class" not in text and "torch." not in text
    assert " at 0x" not in "".join(map(reference.page, modules())), "the same on every run"
    assert signature("shared", lambda count: None) == "shared(count)"


def test_a_docstring_of_the_reference_keeps_its_examples_and_its_signs():
    text = prose("Of *args and <stem>, costs $3; ``a <b> *c``.\n\n>>> 1 + 1\n2\n\n    a <- b")
    assert text.split("\n\n") == [
        r"Of \*args and &lt;stem>, costs \$3; ``a <b> *c``.", "```pycon\n>>> 1 + 1\n2\n```", "    a <- b",
    ]  # fmt: skip
    assert prose("``x``: one of\n``a`` or b.\n``y``: two.") == "``x``: one of\n``a`` or b.  \n``y``: two."


def test_every_public_name_of_the_reference_has_a_docstring():
    bare = [
        f"{module.__name__}.{name}"
        for module in modules()
        for name, thing in public(module, module.__name__)
        if not inspect.getdoc(thing)
    ]
    assert bare == []
