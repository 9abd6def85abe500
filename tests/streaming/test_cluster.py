"""compress on a dask.distributed cluster of two worker processes of this machine."""

import os
import signal
from pathlib import Path

import pytest
import torch

from dts_mini import DTSError, StateError, compress
from dts_mini.cli import main
from dts_mini.core.file import save_tensors
from dts_mini.streaming.checkpoint import open_checkpoint
from dts_mini.streaming.cluster import workers

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread each; one that dies is replaced."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}), distributed.LocalCluster(**options) as found:
        yield found


@pytest.fixture
def line(files) -> list[str]:
    out = files.folder / "a.dts.safetensors"
    return ["compress", "--base", str(files.base), "--expert", str(files.a), "--out", str(out)]


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one_process(cluster, files, line, capsys):
    assert main([*line, "--scheduler", cluster.scheduler_address]) == 0
    wanted = compress(open_checkpoint(files.base), open_checkpoint(files.a))
    assert Path(line[-1]).read_bytes() == wanted.to_bytes()


@pytest.mark.slow
def test_a_worker_killed_midway_costs_nothing_but_time(cluster, tmp_path):
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "expert"):
        state = {f"w{i}": torch.randn(300, 300, generator=generator) for i in range(24)}
        save_tensors(state, tmp_path / f"{name}.safetensors")
    states = [open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "expert")]
    with distributed.Client(cluster) as client:
        pids = client.run(os.getpid)
    done = []

    def progress(name: str) -> None:
        done.append(name)
        if len(done) == 2:
            os.kill(next(iter(pids.values())), signal.SIGKILL)

    with workers(cluster.scheduler_address) as mapper:
        found = compress(*states, algorithm="exact", progress=progress, mapper=mapper)
    assert len(done) == 24
    assert found.to_bytes() == compress(*states, algorithm="exact").to_bytes()
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2, timeout=30)
        assert len(set(client.run(os.getpid).values()) & set(pids.values())) == 1, "one of them did die"


@pytest.mark.slow
def test_what_a_worker_refuses_is_refused_here_in_the_same_words(cluster, files, line, capsys):
    states = {name: dict(open_checkpoint(getattr(files, name))) for name in ("base", "a")}
    states["a"]["embedding"] = states["a"]["embedding"] * float("nan")
    with (
        workers(cluster.scheduler_address) as mapper,
        pytest.raises(StateError, match="tensor 'embedding': 204 of 204"),
    ):
        compress(states["base"], states["a"], mapper=mapper)
    with workers(cluster.scheduler_address) as mapper, pytest.raises(DTSError, match="tensor 'w': worker after worker"):
        list(mapper(_die, ["w"]))


def _die(name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_where_no_scheduler_answers_the_address_is_named(line, capsys, address, monkeypatch):
    monkeypatch.setattr(workers.__wrapped__, "__kwdefaults__", {"timeout": 1})
    assert main([*line, "--scheduler", address]) == 1
    assert f"no scheduler answers at {address}" in capsys.readouterr().err
