"""The main job: what it shows first, how it shares a machine, and that what it keeps is never of something else."""

import json
import resource
import threading

import pytest
import torch

from dts_mini import tutorial
from dts_mini.suites import evaluation, store
from dts_mini.suites.mini.suite import MiniSuite


@pytest.fixture
def suite(tmp_path, monkeypatch) -> MiniSuite:
    monkeypatch.setenv("DTS_STORE", str(tmp_path / "store"))
    return MiniSuite()


class Counted(torch.nn.Module):
    """A tower that answers from a state dict, and counts how often it does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.times = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.times += 1
        return self.weight * pixels.flatten(1)[:, :128]


@pytest.mark.zoo
def test_an_answer_is_kept_for_these_weights_this_task_this_split_and_this_code_alone(suite, monkeypatch):
    tower = Counted()
    monkeypatch.setattr(MiniSuite, "tower", lambda self: tower)

    def made(state: float, task: str = "textures", split: str = "test", suite: MiniSuite = suite) -> bool:
        before = tower.times
        found = evaluation.logits(suite, {"weight": torch.tensor(state)}, task, split)
        plain = tower.times
        monkeypatch.delenv("DTS_STORE")
        assert torch.equal(found, evaluation.logits(MiniSuite(), {"weight": torch.tensor(state)}, task, split))
        monkeypatch.setenv("DTS_STORE", str(suite.store.folder.parent))
        return plain > before

    assert made(1.0)
    assert not made(1.0)
    assert not made(1.0, suite=MiniSuite())
    assert made(2.0)
    assert made(1.0, task="scenes")
    assert made(1.0, split="validation")
    assert not made(1.0)
    other = MiniSuite()
    with torch.no_grad():
        other.model.logit_scale += 0.01  # another text tower, so another head
    assert other.identity("textures", "test") != suite.identity("textures", "test")
    monkeypatch.setattr("dts_mini.suites.mini.suite.code_version", lambda: "of other code")
    assert made(1.0, suite=MiniSuite())


def test_any_change_of_the_code_is_another_version(tmp_path, monkeypatch):
    (tmp_path / "suites").mkdir()
    (tmp_path / "core").mkdir()
    monkeypatch.setattr(store, "__file__", str(tmp_path / "suites/store.py"))
    version = store.code_version.__wrapped__
    file, seen = tmp_path / "core/svd.py", {version()}
    for text in ("x = 1\n", "x = 2\n"):
        file.write_text(text)
        seen.add(version())
    file.rename(tmp_path / "core/codes.py")
    seen.add(version())
    monkeypatch.setattr(store, "version", lambda name: "0")
    seen.add(version())
    assert len(seen) == 5


def test_without_the_variable_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("DTS_STORE", raising=False)
    assert MiniSuite().store is None


@pytest.mark.zoo
@pytest.mark.slow
def test_the_first_result_is_one_task_there_and_back_with_a_picture_in_seconds(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(tutorial, "BUILD", tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF)
    text = tutorial.first_result()
    after = resource.getrusage(resource.RUSAGE_SELF)
    file = tmp_path / "house-numbers.dts.safetensors"
    size = file.stat().st_size
    assert f"its file {size:,} (1.00%)" in text
    assert size <= 0.01 * 7_380_480
    committed = json.loads((suite.folder / "results.json").read_text())["headline"]["rows"]
    (expert,) = (row["accuracy"]["house numbers"]["value"] for row in committed if row["name"] == "experts")
    assert f"the expert {expert:.1%}, rebuilt from 1 %" in text
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 40, "seconds of processor"


def test_a_page_of_the_tutorial_leads_to_its_chapter_of_the_book():
    page = tutorial.linked("<html><body class='a'><p>1</p></body></html>", "02_decomposition")
    assert page.startswith("<html><body class='a'><p style=") and page.count("<a ") == 1
    assert '<a href="../book/02_decomposition.html">' in page


def test_the_start_page_of_the_tutorial_leads_to_the_book_once_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "book" not in tutorial.index("first", {})
    tutorial.BOOK.mkdir(parents=True)
    (tutorial.BOOK / "index.html").touch()
    assert '<a href="../book/index.html">' in tutorial.index("first", {})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 64])
def test_the_processors_are_shared_out(count, monkeypatch):
    monkeypatch.setattr(tutorial.os, "sched_getaffinity", lambda pid: set(range(count)), raising=False)
    workers, threads = tutorial.shared()
    assert 1 <= workers * threads <= count
    assert count >= 4 or workers == count


def test_threads_are_set_for_this_process_and_its_kernels_and_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before, seen = torch.get_num_threads(), []
    with tutorial.one_thread_each(1):
        worker = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        worker.start()
        worker.join()
        assert tutorial.os.environ["OMP_NUM_THREADS"] == "1"
    assert seen == [1]
    assert (torch.get_num_threads(), tutorial.os.environ["OMP_NUM_THREADS"]) == (before, "7")
