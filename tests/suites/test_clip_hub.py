"""Downloads from a Hub on this machine that goes wrong in every way: a clear error, and the next run goes on."""

import errno
import json

import minihub
import pytest
from huggingface_hub import constants

from dts_mini import FileError
from dts_mini.suites import hub as module
from dts_mini.suites.hub import Hub, Repo, check_space, intact

BASE = Repo("openai/clip-vit-base-patch32")
DTD = Repo("tanganke/dtd", "dataset")
WEIGHTS = "model.safetensors"


@pytest.fixture
def make(server, tmp_path):
    return lambda **more: Hub(
        tmp_path / "pins.json", cache=tmp_path / "hub", endpoint=server.address, **{"wait": 0, "tries": 3} | more
    )


def gets(server):
    return [(path, wanted) for method, path, wanted in server.asked if method == "GET" and "/resolve/" in path]


def test_a_file_is_fetched_once_checked_and_its_repository_pinned(make, server, repositories, tmp_path):
    hub = make()
    path = hub.fetch(BASE, WEIGHTS)
    assert path.read_bytes() == repositories[str(BASE)][WEIGHTS]
    assert json.loads((tmp_path / "pins.json").read_text()) == {str(BASE): minihub.COMMIT}
    asked = len(server.asked)
    assert make().fetch(BASE, WEIGHTS) == path
    assert len(server.asked) == asked  # nothing was asked a second time


def test_a_pinned_repository_stays_at_its_commit_when_the_hub_moves_on(make, server):
    make().fetch(BASE, "config.json")
    server.commit = "f" * 40
    hub = make()
    assert hub.commit(BASE) == minihub.COMMIT
    hub.repin()
    assert hub.commit(BASE) == "f" * 40


def test_sizes_are_known_before_anything_is_fetched(make, repositories):
    hub = make()
    file = next(name for name in repositories[str(DTD)] if "test" in name)
    assert hub.missing([(DTD, file)]) == {(DTD, file): len(repositories[str(DTD)][file])}
    hub.fetch_all([(DTD, file)])
    assert hub.missing([(DTD, file)]) == {}


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(make, server, repositories, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    size = len(repositories[str(BASE)][WEIGHTS])
    server.cut = size // 2
    with pytest.raises(FileError, match=r"model.safetensors: could not be downloaded .*run the same command again"):
        make().fetch(BASE, WEIGHTS)
    server.cut, before = 0, len(server.asked)
    assert make().fetch(BASE, WEIGHTS).stat().st_size == size
    (last,) = [wanted for method, path, wanted in server.asked[before:] if method == "GET" and path.endswith(WEIGHTS)]
    assert size // 2 - (1 << 16) < int(last.removeprefix("bytes=").rstrip("-")) <= size // 2


def test_a_busy_hub_is_asked_again_and_then_named(make, server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.busy = 2
    make().fetch(BASE, "config.json")
    server.busy = 1_000
    with pytest.raises(
        FileError, match=r"asks for fewer requests \(429\), 3 times; wait some minutes and run the same"
    ):
        make().fetch(BASE, WEIGHTS)
    server.busy = 0
    assert make().fetch(BASE, WEIGHTS).exists()


def test_a_revoked_revision_is_named_with_its_pin(make, server, tmp_path):
    hub = make()
    hub.fetch(BASE, "config.json")
    server.revoked.add(minihub.COMMIT)
    with pytest.raises(FileError, match=r"commit c0ffeec0 that .*pins.json pins is gone.*--repin"):
        make().fetch(BASE, WEIGHTS)
    server.commit = "f" * 40
    again = make()
    again.repin()
    assert again.fetch(BASE, WEIGHTS).exists()


def test_a_missing_file_and_a_missing_repository_are_named(make):
    with pytest.raises(FileError, match=r"clip-vit-base-patch32/other.bin: there is no such file at commit c0ffeec0"):
        make().fetch(BASE, "other.bin")
    with pytest.raises(FileError, match="nobody/nothing: the Hub has no such model"):
        make().fetch(Repo("nobody/nothing"), WEIGHTS)


def test_a_hub_that_cannot_be_reached_is_named(make, tmp_path):
    hub = Hub(tmp_path / "other.json", cache=tmp_path / "hub", endpoint="http://127.0.0.1:9", tries=1)
    with pytest.raises(FileError, match=r"could not be downloaded.*check the network"):
        hub.fetch(BASE, WEIGHTS)


def test_a_full_disk_is_an_error_and_the_next_run_goes_on(make, monkeypatch):
    hub = make()
    hub.commit(BASE)

    def full(*args, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "http_get", full)
        with pytest.raises(FileError, match=r"model.safetensors: the disk of .* is full; make room, or set HF_HOME"):
            hub.fetch(BASE, WEIGHTS)
    assert make().fetch(BASE, WEIGHTS).exists()


def test_a_disk_too_small_for_everything_is_said_before_the_first_byte(make, server, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000})())
    with pytest.raises(FileError, match=r"GB are to be written and 0.0 GB are free"):
        make().fetch_all([(BASE, WEIGHTS)])
    assert not gets(server)
    with pytest.raises(FileError, match="make room"):
        check_space(1_001, module.Path("/"))


def test_a_damaged_file_is_fetched_anew(make, repositories):
    path = make().fetch(BASE, WEIGHTS)
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.resolve().write_bytes(data)
    assert not intact(path)
    assert make().fetch(BASE, WEIGHTS).read_bytes() == repositories[str(BASE)][WEIGHTS]


def test_a_file_that_always_arrives_damaged_is_named(make, server, monkeypatch):
    monkeypatch.setattr(module, "intact", lambda path: False)
    with pytest.raises(FileError, match="arrives damaged again and again"):
        make().fetch(BASE, "config.json")


def test_offline_a_damaged_file_is_removed_and_named(cache, tmp_path, offline):
    hub = Hub(tmp_path / "pins.json", cache=cache)
    hub.fetch(BASE, WEIGHTS).resolve().write_bytes(b"other")
    with pytest.raises(FileError, match="was damaged in the cache and removed, and HF_HUB_OFFLINE is set: unset it"):
        Hub(tmp_path / "pins.json", cache=cache).fetch(BASE, WEIGHTS)


def test_offline_what_the_cache_lacks_is_named(cache, tmp_path, offline):
    hub = Hub(tmp_path / "pins.json", cache=cache)
    with pytest.raises(FileError, match=r"other.bin: is not in the cache .* HF_HUB_OFFLINE is set"):
        hub.fetch(BASE, "other.bin")
    with pytest.raises(FileError, match="nobody/nothing is not in the cache"):
        hub.fetch(Repo("nobody/nothing"), WEIGHTS)
