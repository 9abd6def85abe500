"""The Hub for deltas: what is sent, what is fetched, and each refusal in a line. No network: a cache and a stand-in."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from dts_mini import DTSError, FileError, compress, hub
from dts_mini.cli import main

huggingface_hub = pytest.importorskip("huggingface_hub")

from huggingface_hub import constants, errors  # noqa: E402

REPO = "someone/tasks"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def deltas(files, monkeypatch) -> Path:
    """A folder with the deltas of two experts, which is the current one."""
    base = load_file(files.base)
    for name in ("a", "b"):
        compress(base, load_file(getattr(files, name))).save(files.folder / f"{name}.dts.safetensors")
    monkeypatch.chdir(files.folder)
    return files.folder


@pytest.fixture
def sent(monkeypatch) -> list:
    """What is sent to the Hub, in place of the Hub."""
    calls = []

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            calls.append(("repo", repo, private, exist_ok))

        def create_commit(self, repo, operations, *, commit_message):
            calls.append(("commit", repo, {o.path_in_repo: o.path_or_fileobj for o in operations}, commit_message))
            return SimpleNamespace(commit_url=f"https://huggingface.co/{repo}/commit/{COMMIT}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return calls


@pytest.fixture
def cached(deltas, tmp_path, monkeypatch) -> Path:
    """The snapshot of a repository in huggingface_hub's cache, offline; it holds both deltas."""
    repo = tmp_path / "hub" / "models--someone--tasks"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for file in deltas.glob("*.dts.safetensors"):
        shutil.copy(file, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot


def run(line: str, capsys) -> tuple[int, str, str]:
    code = main(line.split())
    return code, *capsys.readouterr()


def test_push_sends_the_files_as_they_are_and_their_card_in_one_commit(deltas, sent, capsys):
    line = f"push a.dts.safetensors b.dts.safetensors --repo {REPO} --base-model someone/base --private"
    code, out, err = run(line, capsys)
    assert (code, err) == (0, "")
    assert f"https://huggingface.co/{REPO}/commit/{COMMIT}" in out
    made, (kind, repo, content, message) = sent
    assert made == ("repo", REPO, True, True)
    assert (kind, repo) == ("commit", REPO)
    assert content.keys() == {"a.dts.safetensors", "b.dts.safetensors", "README.md"}
    assert all(content[file.name] == file.read_bytes() for file in deltas.glob("*.dts.safetensors"))
    assert "a.dts.safetensors" in message


def test_the_card_is_written_from_the_manifests_and_its_header_is_one_the_hub_reads(deltas):
    delta = compress(load_file("base.safetensors"), load_file("a.safetensors"), keep_ratio=0.3, groups=8)
    delta.save("c.dts.safetensors")
    manifests = {
        name: hub.decode(Path(name).read_bytes(), name)[0] for name in ("a.dts.safetensors", "c.dts.safetensors")
    }
    text = hub.card(manifests, REPO, "someone/base")
    data = huggingface_hub.ModelCard(text).data
    assert (data.library_name, data.base_model) == ("dts_mini", "someone/base")
    assert "task-vector" in data.tags
    row = next(line for line in text.splitlines() if line.startswith("| c.dts"))
    assert "keep_ratio 0.3, groups 8" in row
    assert f"{Path('c.dts.safetensors').stat().st_size:,}" in row
    assert delta.base in text
    assert f"dts-mini pull {REPO}" in text
    assert huggingface_hub.ModelCard(hub.card(manifests, REPO)).data.base_model is None


def test_deltas_of_two_bases_and_files_that_are_none_are_refused_before_anything_is_sent(deltas, sent, capsys):
    compress(load_file("b.safetensors"), load_file("a.safetensors")).save("other.dts.safetensors")
    for line, complaint in (
        ("a.dts.safetensors other.dts.safetensors", "are not of one base: a.dts.safetensors and other.dts.safetensors"),
        ("a.safetensors", "a.safetensors: is a plain safetensors file"),
        ("none.dts.safetensors", "none.dts.safetensors: cannot be read"),
        (f"a.dts.safetensors {deltas}/a.dts.safetensors", "a.dts.safetensors: there are two files of this name"),
    ):
        code, out, err = run(f"push {line} --repo {REPO}", capsys)
        assert (code, out, sent) == (1, "", [])
        assert complaint in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("revision", ["", " --revision main", f" --revision {COMMIT}"])
def test_pull_writes_the_very_file_from_the_cache_and_says_its_commit(cached, capsys, revision):
    code, out, err = run(f"pull {REPO} --name b.dts.safetensors --out got.dts.safetensors{revision}", capsys)
    assert (code, err) == (0, "")
    assert Path("got.dts.safetensors").read_bytes() == Path("b.dts.safetensors").read_bytes()
    assert COMMIT in out


def test_the_only_delta_of_a_repository_needs_no_name(cached, capsys):
    (cached / "b.dts.safetensors").unlink()
    assert run(f"pull {REPO} --out got.dts.safetensors", capsys)[0] == 0
    assert Path("got.dts.safetensors").read_bytes() == Path("a.dts.safetensors").read_bytes()


def test_pull_refuses_by_name_what_is_not_there_or_not_whole(cached, capsys):
    data = bytearray((cached / "a.dts.safetensors").read_bytes())
    data[-1] ^= 1
    (cached / "a.dts.safetensors").write_bytes(data)
    for line, complaint in (
        (REPO, "holds 2 deltas (a.dts.safetensors, b.dts.safetensors); name one"),
        (f"{REPO} --name c.dts.safetensors", "holds no c.dts.safetensors"),
        (f"{REPO} --name a.dts.safetensors", f"{REPO}/a.dts.safetensors: was altered"),
        ("someone/else", "someone/else: the Hub cannot be reached, and the cache lacks it"),
        (f"{REPO} --revision old", "the Hub cannot be reached"),
        ("no/name/at/all", "no/name/at/all: is no name of a repository"),
    ):
        code, out, err = run(f"pull {line} --out got.dts.safetensors", capsys)
        assert (code, out) == (1, "")
        assert complaint in err
        assert err.count("\n") == 1
        assert not Path("got.dts.safetensors").exists()


def refusal(kind: type, status: int) -> Exception:
    return kind("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (refusal(errors.RepositoryNotFoundError, 404), "there is no such repository, or it is not yours to see"),
        (refusal(errors.GatedRepoError, 403), "it is not yours to see"),
        (refusal(errors.RevisionNotFoundError, 404), "there is no such revision"),
        (refusal(errors.HfHubHTTPError, 401), r"status 401\); log in"),
        (refusal(errors.HfHubHTTPError, 403), r"status 403\); log in as someone who may write"),
        (refusal(errors.HfHubHTTPError, 429), r"status 429\); it asks to wait"),
        (refusal(errors.HfHubHTTPError, 500), r"status 500\); try again later"),
        (errors.LocalTokenNotFoundError("no"), "nobody is logged in"),
        (errors.OfflineModeIsEnabled("no"), "cannot be reached"),
        (ConnectionError("no"), "cannot be reached"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_said_with_the_mend(deltas, monkeypatch, error, complaint):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", refuse)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FileError, match=f"{REPO}: .*{complaint}"):
        hub.push(["a.dts.safetensors"], REPO)
    with pytest.raises(FileError, match=f"{REPO}: .*{complaint}"):
        hub.pull(REPO, "got.dts.safetensors")


def test_a_refusal_is_told_even_where_the_library_looked_into_its_cache_afterwards(deltas, monkeypatch):
    def refuse(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("no") from refusal(errors.HfHubHTTPError, 429)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(FileError, match=r"status 429\); it asks to wait"):
        hub.pull(REPO, "got.dts.safetensors")


def test_without_the_library_both_say_what_to_install(deltas, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(DTSError, match=r"pip install 'dts_mini\[hub\]'"):
        hub.push(["a.dts.safetensors"], REPO)
