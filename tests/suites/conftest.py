"""The miniature Hub, written once, and suites on it that never leave this machine."""

import shutil

import minihub
import pytest
from huggingface_hub import constants

from dts_mini.reproduce import reproduce
from dts_mini.suites.clip.suite import ClipSuite
from dts_mini.suites.hub import Hub


@pytest.fixture(scope="session")
def repositories():
    """The files of every repository of eight tasks: {repository: {file: bytes}}."""
    return minihub.contents()


@pytest.fixture(scope="session")
def _cache(repositories, tmp_path_factory):
    return minihub.write(tmp_path_factory.mktemp("hub"), repositories)


@pytest.fixture
def server(repositories, monkeypatch):
    """The miniature Hub as an address on this machine, with faults on demand."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with minihub.serve({name: dict(files) for name, files in repositories.items()}) as server:
        yield server


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def cache(_cache, tmp_path):
    """A cache of one's own, to damage."""
    return shutil.copytree(_cache, tmp_path / "hub", symlinks=True)


@pytest.fixture
def clip(_cache, tmp_path, offline):
    """Makes suites on the miniature Hub, offline, whose results lie in a folder of their own."""

    def make(cache=_cache, **options) -> ClipSuite:
        home = options.pop("home", tmp_path / "home")
        return ClipSuite(home=home, hub=Hub(home / "revisions.json", cache=cache), device="cpu", **options)

    return make


@pytest.fixture(scope="session")
def done(_cache, tmp_path_factory):
    """A suite that was reproduced, with two points of the curve instead of all, and the report."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        minihub.few_points(patch, ("DTS-T", "keep 0.1"), ("DRC", "1%"))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        suite = ClipSuite(home=home, hub=Hub(home / "revisions.json", cache=_cache), device="cpu")
        return suite, reproduce(suite)
