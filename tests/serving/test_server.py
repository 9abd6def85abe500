"""The server: many tasks over one module, within a bound on memory, for any number of threads."""

import os
import random
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from served import apart, bits, experts_of, make, materialised, same, samples

from dts_mini import compress
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.serving import Expert, Server
from dts_mini.serving import server as server_module

PLENTY = 2**30


@pytest.fixture
def shop(tmp_path) -> SimpleNamespace:
    """A module, eight deltas in a folder, one batch, and each task's outputs by its own weights."""
    module = make("transformer layer")
    deltas = {f"task {i}": delta for i, delta in enumerate(experts_of(module, 8))}
    for task, delta in deltas.items():
        delta.save(tmp_path / f"{task}.dts.safetensors")
    (x,) = samples("transformer layer", 8)
    wanted = {task: materialised(module, delta)(x) for task, delta in deltas.items()}
    server = Server(module, tmp_path, memory=PLENTY)
    expert, file = server.expert("task 0").nbytes, (tmp_path / "task 0.dts.safetensors").stat().st_size
    return SimpleNamespace(folder=tmp_path, module=module, deltas=deltas, x=x, wanted=wanted, expert=expert, file=file)


@pytest.fixture
def decodings(monkeypatch) -> list:
    """The tasks whose experts are decoded, in order."""
    found, real = [], server_module.Expert

    def counted(base, delta):
        found.append(delta.expert)
        return real(base, delta)

    monkeypatch.setattr(server_module, "Expert", counted)
    return found


@pytest.fixture
def readings(monkeypatch) -> list:
    """The files that are read, in order."""
    found, real = [], server_module.read_bytes

    def counted(path):
        found.append(Path(path).name.removesuffix(".dts.safetensors"))
        return real(path)

    monkeypatch.setattr(server_module, "read_bytes", counted)
    return found


def test_each_task_of_a_folder_is_served_by_its_files_name(shop):
    before, server = bits(shop.module), Server(shop.module, shop.folder, memory=PLENTY)
    assert server.tasks == sorted(shop.deltas)
    for task, wanted in shop.wanted.items():
        assert apart(server(task, shop.x), wanted) < 1e-5
    assert same(shop.module, before)


def test_a_batch_holds_a_task_for_each_sample(shop):
    server = Server(shop.module, shop.folder, memory=PLENTY)
    tasks = ["task 7", "task 0", "task 7", "task 3", "task 1", "task 2", "task 3", "task 7"]
    found = server(tasks, shop.x)
    for place, task in enumerate(tasks):
        assert apart(found[place], shop.wanted[task][place]) < 1e-5


def test_files_are_read_once_and_experts_decoded_once_when_there_is_room(shop, decodings, readings):
    server = Server(shop.module, shop.folder, memory=PLENTY)
    for _ in range(2):
        for task in shop.deltas:
            server(task, shop.x)
    assert sorted(readings) == sorted(shop.deltas)
    assert len(decodings) == 8
    assert server.held == 8 * (shop.file + shop.expert)


def test_the_expert_used_least_recently_goes_first(shop, decodings):
    server = Server(shop.module, shop.folder, memory=8 * shop.file + 2 * shop.expert)
    served = lambda task: (server(task, shop.x), decodings.copy(), decodings.clear())[1]
    name = {task: delta.expert for task, delta in shop.deltas.items()}
    for task, decoded in (
        ("task 0", True),
        ("task 1", True),
        ("task 0", False),
        ("task 2", True),  # task 1 goes: task 0 was used since
        ("task 0", False),
        ("task 2", False),
        ("task 1", True),
        ("task 0", True),
    ):
        assert served(task) == ([name[task]] if decoded else [])
        assert server.held <= server.memory


def test_when_experts_are_gone_files_go_and_are_read_again(shop, readings):
    server = Server(shop.module, shop.folder, memory=3 * shop.file)
    assert server.held == 3 * shop.file
    readings.clear()
    for task in ("task 7", "task 6", "task 0", "task 0", "task 7"):  # in memory are those that were added last
        assert apart(server(task, shop.x), shop.wanted[task]) < 1e-5
        assert server.held <= server.memory
    assert readings == ["task 0"]


def test_one_byte_of_memory_is_enough_to_serve(shop):
    server = Server(shop.module, shop.folder, memory=1)
    assert server.held == 0
    assert apart(server(["task 5"] * 4 + ["task 2"] * 4, shop.x)[5], shop.wanted["task 2"][5]) < 1e-5
    assert server.held == 0


def test_what_an_expert_lays_out_while_it_runs_counts_as_well(tmp_path):
    module = make("cross-attention")  # has no side path
    for i, delta in enumerate(experts_of(module, 2)):
        delta.save(tmp_path / f"{i}.dts.safetensors")
    wide = Server(module, tmp_path, memory=PLENTY)
    start = sum(wide.expert(task).nbytes for task in wide.tasks)
    for task in wide.tasks:
        wide(task, *samples("cross-attention", 2))
    assert wide.held > start + sum(path.stat().st_size for path in tmp_path.iterdir())
    narrow = Server(module, tmp_path, memory=wide.held - 1)
    for task in narrow.tasks:
        narrow(task, *samples("cross-attention", 2))
        assert narrow.held <= narrow.memory


def test_hundreds_of_tasks_take_little_more_than_their_files(shop):
    files = {f"{task}/{copy}": shop.folder / f"{task}.dts.safetensors" for task in shop.deltas for copy in range(40)}
    memory = round(1.2 * len(files) * shop.file)
    server, order = Server(shop.module, files, memory=memory), random.Random(0)
    assert len(server.tasks) == 320
    for task in order.sample(sorted(files), 40):
        assert apart(server(task, shop.x), shop.wanted[task.split("/")[0]]) < 1e-5
        assert len(files) * shop.file <= server.held <= memory


@pytest.mark.parametrize("experts", [0.5, 2.5, 8])
def test_eight_tasks_interleaved_over_threads_get_what_each_gets_alone(shop, experts):
    server = Server(shop.module, shop.folder, memory=round(6 * shop.file + experts * shop.expert))
    alone = {task: server(task, shop.x) for task in shop.deltas}
    wrong, over, start = [], [], threading.Barrier(6)

    def work(seed: int) -> None:
        order = random.Random(seed)
        start.wait()
        for turn in range(25):
            if turn % 5 == 4:
                tasks = order.choices(list(shop.deltas), k=8)
                found = server(tasks, shop.x)
                wrong.extend(t for i, t in enumerate(tasks) if apart(found[i], shop.wanted[t][i]) > 1e-5)
            else:
                task = order.choice(list(shop.deltas))
                wrong.extend([] if torch.equal(server(task, shop.x), alone[task]) else [task])
            over.append(server.held > server.memory)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(over) == 6 * 25 and not any(over)


def test_threads_that_ask_for_one_task_at_once_decode_it_once(shop, decodings):
    server, start = Server(shop.module, shop.folder, memory=PLENTY), threading.Barrier(8)
    threads = [threading.Thread(target=lambda: (start.wait(), server("task 0", shop.x))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decodings) == 1


@pytest.mark.slow
@pytest.mark.zoo
def test_the_eight_tasks_of_the_mini_suite_interleaved_are_their_experts(tmp_path):
    from dts_mini.suites import load_suite

    suite = load_suite("mini")
    tower, base = suite.tower(), suite.pretrained()
    tower.load_state_dict(base)
    deltas = {task: compress(base, suite.expert(task), keep_ratio=0.1) for task in suite.tasks}
    files = {task: delta.save(tmp_path / f"{task}.dts.safetensors") for task, delta in deltas.items()}
    expert = Expert(server_module.Base(tower.eval()), deltas["signs"]).nbytes
    memory = 3 * expert + sum(path.stat().st_size for path in files.values())
    server = Server(tower, files, memory=memory)
    draw = torch.Generator().manual_seed(0)
    images = {task: torch.randn(3, 3, 32, 32, generator=draw) for task in suite.tasks}
    wanted = {task: materialised(tower, delta)(images[task]) for task, delta in deltas.items()}
    order = [task for _ in range(3) for task in suite.tasks]
    for task in order:
        assert apart(server(task, images[task]), wanted[task]) < 1e-4
        assert server.held <= memory
    mixed = server(order, torch.cat([torch.stack([images[task][i] for task in suite.tasks]) for i in range(3)]))
    assert apart(mixed, torch.cat([torch.stack([wanted[task][i] for task in suite.tasks]) for i in range(3)])) < 1e-4


# --- tasks that come and go ---


def test_a_task_added_again_is_served_from_its_new_file(shop, tmp_path):
    server = Server(shop.module, {"a": shop.folder / "task 0.dts.safetensors"}, memory=PLENTY)
    server("a", shop.x)
    server.add("a", shop.folder / "task 1.dts.safetensors")
    assert server.tasks == ["a"]
    assert apart(server("a", shop.x), shop.wanted["task 1"]) < 1e-5


def test_a_removed_task_takes_no_memory_and_is_unknown(shop):
    server = Server(shop.module, shop.folder, memory=PLENTY)
    server("task 3", shop.x)
    held = server.held
    server.remove("task 3")
    assert server.held == held - shop.file - shop.expert
    for act in (lambda: server("task 3", shop.x), lambda: server.remove("task 3")):
        with pytest.raises(DTSError, match="task 'task 3' is unknown"):
            act()


# --- files that change under a task's name ---


def replaced(shop, task: str, by: str) -> None:
    """The file of one task put in the place of another's, as a copy that keeps size and times."""
    path, fresh = shop.folder / f"{task}.dts.safetensors", shop.folder / "fresh"
    shutil.copy2(shop.folder / f"{by}.dts.safetensors", fresh)
    times = path.stat()
    os.utime(fresh, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(fresh, path)


@pytest.mark.parametrize("memory", [1, PLENTY])
def test_a_file_that_is_replaced_is_served_from_the_next_request_on(shop, memory):
    server = Server(shop.module, shop.folder, memory=memory)
    server("task 0", shop.x)
    replaced(shop, "task 0", by="task 1")
    assert apart(server("task 0", shop.x), shop.wanted["task 1"]) < 1e-5
    replaced(shop, "task 0", by="task 2")
    found = server(["task 0"] * 4 + ["task 3"] * 4, shop.x)
    assert apart(found[0], shop.wanted["task 2"][0]) < 1e-5 and apart(found[7], shop.wanted["task 3"][7]) < 1e-5
    assert server.held <= server.memory and len(server.tasks) == 8


def test_a_file_written_over_in_its_place_is_noticed_too(shop):
    server, path = Server(shop.module, shop.folder, memory=PLENTY), shop.folder / "task 0.dts.safetensors"
    server("task 0", shop.x)
    path.write_bytes((shop.folder / "task 1.dts.safetensors").read_bytes())
    assert apart(server("task 0", shop.x), shop.wanted["task 1"]) < 1e-5


def test_what_is_not_replaced_is_read_once(shop, readings):
    server = Server(shop.module, shop.folder, memory=PLENTY)
    replaced(shop, "task 0", by="task 1")
    for _ in range(3):
        for task in shop.deltas:
            server(task, shop.x)
    assert sorted(readings) == sorted([*shop.deltas, "task 0"])


def test_a_replacement_that_is_damaged_or_of_another_base_is_refused_until_it_is_mended(shop):
    server, path = Server(shop.module, shop.folder, memory=PLENTY), shop.folder / "task 0.dts.safetensors"
    whole = path.read_bytes()
    server("task 0", shop.x)
    path.write_bytes(whole[:-9])
    for _ in range(2):
        with pytest.raises(FileError, match=r"task 0\.dts\.safetensors"):
            server("task 0", shop.x)
    other = make("transformer layer")
    other.layer.linear1.weight += 1
    experts_of(other, 1)[0].save(path, overwrite=True)
    with pytest.raises(StateError, match=r"that .*task 0\.dts\.safetensors was made for"):
        server("task 0", shop.x)
    assert apart(server("task 1", shop.x), shop.wanted["task 1"]) < 1e-5
    path.write_bytes(whole)
    assert apart(server("task 0", shop.x), shop.wanted["task 0"]) < 1e-5


def test_files_replaced_while_threads_ask_for_them_are_one_expert_or_the_other(shop):
    server, wrong = Server(shop.module, shop.folder, memory=2 * shop.expert + 8 * shop.file), []

    def work() -> None:
        for _ in range(20):
            found = server("task 0", shop.x)
            wrong.extend([1] if min(apart(found, shop.wanted[f"task {i}"]) for i in (0, 1)) > 1e-5 else [])

    shutil.copy2(shop.folder / "task 0.dts.safetensors", shop.folder / "kept")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        shutil.copy2(shop.folder / ("kept" if turn % 2 else "task 1.dts.safetensors"), shop.folder / "fresh")
        os.replace(shop.folder / "fresh", shop.folder / "task 0.dts.safetensors")
    for thread in threads:
        thread.join()
    assert wrong == []
    assert apart(server("task 0", shop.x), shop.wanted["task 0"]) < 1e-5


# --- what is refused ---


def test_an_unknown_task_is_refused_with_the_known_ones_before_any_is_decoded(shop, decodings):
    before, server = bits(shop.module), Server(shop.module, shop.folder, memory=PLENTY)
    held = server.held
    with pytest.raises(DTSError, match=r"task 'tsak 0' is unknown; served are task 0, task 1.*task 7$"):
        server("tsak 0", shop.x)
    with pytest.raises(DTSError, match="task 'tsak 0' is unknown"):
        server(["task 0"] * 7 + ["tsak 0"], shop.x)
    assert decodings == [] and server.held == held and same(shop.module, before)


@pytest.mark.parametrize("tasks", [None, 3, ["a", None], [["a"]]])
def test_what_are_no_names_of_tasks_are_refused_as_such(shop, tasks):
    with pytest.raises(DTSError, match=r"tasks is .*: give the name of a task, or a list"):
        Server(shop.module, shop.folder, memory=PLENTY)(tasks, torch.randn(2, 6))


def test_a_delta_in_place_of_a_path_is_refused_as_such(shop):
    with pytest.raises(DTSError, match=r"task 'x' with TaskDelta: give a name and the path"):
        Server(shop.module, shop.folder, memory=PLENTY).add("x", compress({"w": torch.zeros(2)}, {"w": torch.ones(2)}))


@pytest.mark.parametrize("count", [0, 7, 9])
def test_a_list_of_another_length_than_the_batch_is_refused_before_any_is_decoded(shop, decodings, count):
    server = Server(shop.module, shop.folder, memory=PLENTY)
    with pytest.raises(DTSError, match="there are no experts" if not count else f"{count} experts and 8 samples"):
        server(["task 0"] * count, shop.x)
    assert decodings == []


def test_a_delta_of_another_base_is_refused_with_its_file_before_anything_is_served(shop):
    other = make("transformer layer")
    other.layer.linear1.weight += 1
    experts_of(other, 1)[0].save(shop.folder / "foreign.dts.safetensors")
    with pytest.raises(StateError, match=r"that .*foreign\.dts\.safetensors was made for"):
        Server(shop.module, shop.folder, memory=PLENTY)
    server = Server(shop.module, {"a": shop.folder / "task 0.dts.safetensors"}, memory=PLENTY)
    with pytest.raises(StateError, match="are not those that"):
        server.add("a", shop.folder / "foreign.dts.safetensors")
    assert apart(server("a", shop.x), shop.wanted["task 0"]) < 1e-5


def test_a_file_that_is_missing_altered_or_no_delta_is_refused_by_its_name(shop):
    path = shop.folder / "task 0.dts.safetensors"
    whole = path.read_bytes()
    for data in (None, whole[:-9], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(FileError, match=r"task 0\.dts\.safetensors"):
            Server(shop.module, {"a": path}, memory=PLENTY)


def test_a_file_that_is_lost_while_it_is_served_says_so_and_the_others_go_on(shop):
    server = Server(shop.module, shop.folder, memory=1)
    (shop.folder / "task 0.dts.safetensors").unlink()
    with pytest.raises(FileError, match=r"task 0\.dts\.safetensors: cannot be read"):
        server("task 0", shop.x)
    assert apart(server("task 1", shop.x), shop.wanted["task 1"]) < 1e-5


def test_a_folder_without_deltas_and_a_bound_of_nothing_are_refused(shop, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"empty: holds no file \*\.dts\.safetensors"):
        Server(shop.module, tmp_path / "empty", memory=PLENTY)
    for memory in (0, -1, 0.5, float("nan"), "1 GB", None):
        with pytest.raises(DTSError, match=f"memory is {memory!r}: give a number of bytes"):
            Server(shop.module, shop.folder, memory=memory)


def test_an_untied_expert_of_a_tied_module_and_a_module_that_hides_its_weights_are_refused_before_anything_is_served(
    tmp_path,
):
    module = make("embedding, tied")
    base = {name: x.clone() for name, x in module.state_dict().items()}
    compress(base, base | {"out.weight": base["out.weight"] + 1}).save(tmp_path / "a.dts.safetensors")
    with pytest.raises(StateError, match=r"a\.dts\.safetensors changes 'table.weight' and 'out.weight' apart"):
        Server(module, tmp_path, memory=PLENTY)
    experts_of(module, 1)[0].save(tmp_path / "a.dts.safetensors", overwrite=True)
    assert Server(module, tmp_path, memory=PLENTY).tasks == ["a"]
    module.inner.compile(backend="eager")
    with pytest.raises(StateError, match="'inner', a Linear, is compiled"):
        Server(module, tmp_path, memory=PLENTY)
