"""``dts-mini reproduce`` on the miniature Hub, as a command of its own, with the network off: first to last."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from errno import ENOSPC
from types import SimpleNamespace

import minihub
import pytest
from huggingface_hub import constants

import dts_mini.reproduce as module
from dts_mini import FileError
from dts_mini.cli import main
from dts_mini.measures.cells import GROUPS, cells_of
from dts_mini.measures.tables import passes
from dts_mini.reproduce import plan, plan_text, published, reproduce, side_by_side
from dts_mini.suites import hub as hub_module
from dts_mini.suites.clip import suite as clip_suite
from dts_mini.suites.clip.suite import ClipSuite
from dts_mini.suites.hub import Hub

PUBLISHED = module._published()


def command(cache, out):
    return subprocess.Popen(
        [sys.executable, "-m", "dts_mini", "reproduce", "--suite", "clip-vit-b-32", "--out", str(out), "--no-curves"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_command_measures_and_reports_and_a_killed_run_goes_on(_cache, done, tmp_path):
    shutil.copytree(done[0].home.parent, tmp_path, dirs_exist_ok=True)  # to save time: images, merges, some deltas
    store, folder = tmp_path / "clip-vit-b-32" / "store", tmp_path / "clip-vit-b-32" / "P3-8-fused"
    shutil.rmtree(folder)
    shutil.rmtree(logits := store / "logits")
    for path in sorted((store / "deltas").iterdir())[::4]:
        path.unlink()
    killed = command(_cache, tmp_path)
    while killed.poll() is None and not (logits.exists() and len(list(logits.glob("*.safetensors"))) > 20):
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    kept = {path: path.stat().st_mtime_ns for path in logits.iterdir() if path.suffix == ".safetensors"}
    assert kept
    again = command(_cache, tmp_path)
    out, error = again.communicate()
    assert again.returncode == 0, error
    assert out.strip().endswith("report.md: the tables, beside what is published")
    assert all(path.stat().st_mtime_ns == made for path, made in kept.items())  # nothing was made twice
    report = json.loads((folder / "report.json").read_text())
    assert [report[table]["title"] for table in module.TABLES] == ["Personalised merging", "Unseen tasks"]
    assert len(report["revisions"]) == 17 and report["checks"]["DTD"]["in training too"] == 0
    text = (folder / "report.md").read_text()
    assert re.search(r"\| experts \| [\d.]+ \(75\.0\) \|.* [\d.]+ \(90\.3\) \|", text)


def test_a_second_run_makes_and_measures_nothing(done, clip, monkeypatch):
    first, report = done
    monkeypatch.setattr(clip_suite.Tower, "forward", lambda *args: pytest.fail("a tower ran"))
    for overwrite in (False, True):  # a finished table is read, or made anew from the kept logits
        again = clip(home=first.home.parent)
        repeated = reproduce(again, with_curves=False, overwrite=overwrite)
        assert not again.store.made
        assert repeated["headline"]["rows"] == report["headline"]["rows"]
        assert (repeated["unseen"] == report["unseen"]) is not overwrite


def test_the_plan_counts_passes_as_the_tables_make_them(done):
    suite, report = done
    expected = passes(suite)
    assert len(report["headline"]["rows"]) == expected["headline"]
    assert len(report["unseen"]["rows"]) == expected["unseen"]
    assert suite.store.made["deltas"] == expected["deltas"]


def test_the_curve_is_measured_point_by_point_and_printed(done, clip, monkeypatch):
    suite, report = done
    assert json.loads((suite.folder / "curves.json").read_text())["rows"] == report["curves"]["rows"]  # for notebook 10
    names = [row["name"] for row in report["curves"]["rows"]]
    assert names == ["experts", "DTS-T", "DRC"]
    text = (suite.folder / "report.md").read_text()
    assert re.search(r"\| curve \| DTS-T \| keep 0.1 \| \d+\.\d\d % \| [\d.]+ \[[\d.]+, [\d.]+\] \| 0\.\d+ \|", text)
    assert "too small" in text or re.search(r"\| ablation \| DRC \| 1% \| \d", text)
    monkeypatch.setattr(clip_suite.Tower, "forward", lambda *args: pytest.fail("a tower ran"))
    reproduce(clip(home=suite.home.parent))
    monkeypatch.setattr(module, "_timed", lambda suite: (0.01, 1.0))
    more, less = (plan(suite, with_curves=choice)["seconds"]["evaluation"] for choice in (True, False))
    assert more - less == pytest.approx(len(cells_of(GROUPS)) * 87_433 * 0.01)


def test_the_report_puts_our_numbers_beside_those_of_the_same_protocol_alone(done):
    suite, report = done
    text = (suite.folder / "report.md").read_text()
    mine, _, others = text.partition("## Published for other checkpoints")
    (theirs,) = [t for t in PUBLISHED["tables"] if t["protocol"] == "P3" and t["table"] == "headline"]
    assert theirs["source"] in mine and "P1" not in mine
    assert "compare orders and gaps, never digits" in others and "P1" in others
    zero_shot = next(row for row in report["headline"]["rows"] if row["name"] == "zero-shot")
    ours = 100 * zero_shot["accuracy"]["SUN397"]["value"]
    assert f"| zero-shot | {ours:.1f} (63.2) |" in side_by_side(report["headline"], theirs)
    assert "DTS-D over TIES, keep ratio 0.3 | 90.4 | 99.9% | 3.68 %" in others  # 90.4 of its own experts' 90.5
    mean = sum(
        row["value"] for row in next(r for r in report["unseen"]["rows"] if r["name"] == "TIES")["accuracy"].values()
    )
    assert f"| TIES | {100 * mean / 2:.1f} (53.8) | (71.7) |" in mine


def test_a_dry_run_fetches_nothing_and_says_bytes_and_time(_cache, tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(_cache))
    arguments = ["reproduce", "--suite", "clip-vit-b-32", "--out", str(tmp_path), "--dry-run", "--device", "cpu"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "to download: 0 bytes (0 bytes)" in text and "evaluation: about" in text and "images/s on cpu" in text
    assert text.count("c0ffeec0") == 17
    assert not (tmp_path / "clip-vit-b-32" / "images").exists()


def test_a_plan_counts_what_is_missing_and_what_nobody_knows(clip, cache, repositories):
    suite = clip(cache)
    whole = plan(suite)
    assert (whole["download"], whole["unknown"]) == (0, 0)
    folder = minihub.folder_of(cache, "tanganke/clip-vit-base-patch32_dtd")
    for path in (folder / "snapshots").rglob("model.safetensors"):
        path.unlink()
    for path in sorted((folder / "refs").iterdir()):
        path.unlink()
    part = plan(clip(cache, home=cache.parent / "other"))
    assert part["unknown"] == 1
    assert "and 1 repositories of unknown size: tanganke/clip-vit-base-patch32_dtd is not in the cache" in plan_text(
        part
    )


def test_a_dry_run_needs_neither_cache_nor_network(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_timed", lambda suite: (0.01, 1.0))  # the real model's shape takes its time
    found = plan(clip(tmp_path / "empty"), with_curves=False)
    assert found["unknown"] == 17 and found["kept"] == {"decoded images": found["inputs"] * 3 * 224 * 224}
    runs = passes(clip(tmp_path / "empty"))
    hours = (runs["headline"] * found["inputs"] + runs["unseen"] * (6_300 + 26_032)) * 0.01 / 3600
    text = plan_text(found)
    assert f"evaluation: about {hours:.1f} h (100 images/s on cpu" in text
    assert found["download"] is None
    assert "to download: unknown, for all 17 repositories: " in text
    assert "0 bytes" not in text


def test_a_busy_machine_does_not_change_what_is_predicted(clip, cache, monkeypatch):
    """Every look at the clock is a second later than the last; the processor's own time goes on as it is."""
    suite = clip(cache)
    seconds = itertools.count()
    quiet = module._timed(suite)
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(seconds)))
    assert module._timed(suite) == pytest.approx(quiet, rel=1, abs=0.05)


def test_after_every_fault_of_the_hub_the_same_command_goes_on(done, server, tmp_path, monkeypatch):
    first, report = done
    shutil.copytree(first.home.parent, tmp_path / "home")  # what was decoded and measured; no file of the Hub
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def run() -> dict:
        hub = Hub(tmp_path / "pins.json", cache=tmp_path / "hub", endpoint=server.address, wait=0)
        return reproduce(ClipSuite(home=tmp_path / "home", hub=hub, device="cpu"), with_curves=False)

    def refused(words: str) -> None:
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "hub").rglob("*") if len(path.name) == 64}
        with pytest.raises(FileError, match=words):
            run()
        assert all(
            path.exists() and path.stat().st_mtime_ns == made for path, made in before.items()
        )  # nothing is lost

    weights, expert = "model.safetensors", "tanganke/clip-vit-base-patch32_sun397"
    server.busy = 1_000
    refused(r"asks for fewer requests \(429\), 5 times; wait some minutes and run the same command again")
    server.busy, server.cut = 0, 1_000
    refused("could not be downloaded.*run the same command again, it goes on where it stopped")
    server.cut, server.spoilt = 0, {weights}
    refused(f"{weights}: arrives damaged again and again")
    server.spoilt = set()
    with monkeypatch.context() as patch:
        patch.setattr(
            hub_module, "http_get", full := lambda *args, **named: (_ for _ in ()).throw(OSError(ENOSPC, "full"))
        )
        refused(f"{weights}: the disk of .* is full; make room, or set HF_HOME to another disk")
    held = server.repos[expert].pop(weights)
    refused(f"{expert} at c0ffeec0: has no model.safetensors; was the repository changed?")
    server.repos[expert][weights] = held
    server.revoked.add(minihub.COMMIT)
    refused("the commit c0ffeec0 that .*pins.json pins is gone from the Hub.*--repin")
    server.revoked.clear()
    assert run()["headline"]["rows"] == report["headline"]["rows"]
    monkeypatch.setattr(hub_module, "http_get", full)  # all is here by now: a full disk no longer matters
    asked = len(server.asked)
    run()
    assert not [path for _, path, _ in server.asked[asked:] if path.endswith(weights)]


@pytest.mark.slow
def test_a_run_killed_at_any_write_loses_nothing_that_was_written(done, clip, tmp_path, monkeypatch):
    """Each run may write a few files, then dies, now by a kill and now by a full disk; the last measures the same."""
    first, report = done
    home = tmp_path / "home"
    shutil.copytree(first.home.parent, home)
    shutil.rmtree(home / "clip-vit-b-32" / "P3-8-fused")
    for kind in ("logits", "leaks", "heads"):
        shutil.rmtree(home / "clip-vit-b-32" / "store" / kind)
    replace, room, written = os.replace, SimpleNamespace(left=0), []

    def last(source, target):
        if not room.left:
            raise KeyboardInterrupt if len(written) % 2 else OSError(ENOSPC, "No space left on device")
        room.left -= 1
        written.append(str(target))
        replace(source, target)

    monkeypatch.setattr("os.replace", last)
    for room.left in (writes := [0, 1, 2, 9, 30, 60]):
        with pytest.raises((KeyboardInterrupt, FileError)) as stopped:
            reproduce(clip(home=home), with_curves=False)
        if stopped.type is FileError:
            assert "No space left on device); nothing was changed; make room on the disk" in str(stopped.value)
    assert len(written) == sum(writes)
    room.left = 10_000
    assert reproduce(clip(home=home), with_curves=False)["headline"]["rows"] == report["headline"]["rows"]
    store = [name for name in written if f"{os.sep}store{os.sep}" in name]
    assert len(store) == len(set(store))  # nothing was made twice
    assert not [path for path in home.rglob(".*") if path.is_file()]  # and no piece of a file lies about


def test_what_is_wrong_is_said_before_anything_is_measured(_cache, tmp_path, monkeypatch, capsys, offline):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert main(["reproduce", "--suite", "clip-vit-b-32", "--out", str(tmp_path)]) == 1
    assert "HF_HUB_OFFLINE is set: unset it" in capsys.readouterr().err


def test_published_rows_add_up_and_name_their_sources():
    for table in PUBLISHED["tables"]:
        assert table["protocol"] in PUBLISHED["protocols"] and table["source"]
        for row in table["rows"]:
            if "accuracy" in row:
                assert list(row["accuracy"]) == table["columns"]
                if "mean" in row:
                    assert sum(row["accuracy"].values()) / len(row["accuracy"]) == pytest.approx(row["mean"], abs=0.1)
            if table["table"] == "headline" and table["source"] == "as named in each row":
                assert row["source"]


def test_published_tables_of_the_same_protocol_come_first(clip):
    assert [t["protocol"] for t in published(clip())] == ["P3", "P3", "P1", "P1"]


NOTEBOOKS = {
    "07_figure": """# %%
import matplotlib.pyplot as plt
from dts_mini.course import claim, show
from dts_mini.suites import load_suite
suite = load_suite()
print(suite.name, len(suite.tasks), suite.home)
claim("07-x", "Two is more than three.", 2, low=3)
figure, axis = plt.subplots(figsize=(1, 1))
show(figure, alt="A figure of the suite's own.")
""",
    "08_stops": "# %%\nraise RuntimeError('no such task')\n",
    "13_other": "# %%\nraise RuntimeError('not asked for')\n",
}


@pytest.mark.slow
def test_the_notebooks_run_on_the_suite_and_their_figures_are_kept(done, tmp_path, monkeypatch):
    suite, report = done
    for name, text in NOTEBOOKS.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr("dts_mini.course.build.sources", lambda: sorted(tmp_path.glob("*.py")))
    found = module.draw(suite)
    assert list(found) == ["07_figure", "08_stops"]
    (figure,) = found["07_figure"]["figures"]
    assert (suite.folder / figure["file"]).read_bytes().startswith(b"\x89PNG")
    assert figure["alt"] == "A figure of the suite's own." and "stopped" not in found["07_figure"]
    page = (suite.folder / "figures" / "07_figure.html").read_text()
    assert f"clip-vit-b-32 8 {suite.home}" in page and "does not hold on this suite: Two is more" in page
    assert found["08_stops"]["stopped"] == "RuntimeError: no such task"
    text = module.report_text(report | {"figures": found})
    assert f"![{figure['alt']}]({figure['file']})" in text and "The notebook stopped: RuntimeError" in text
