"""What it costs to serve eight tasks over one model: swapped, on the fly, mixed; and a hundred tasks' memory.

    python -m benchmarks.serving [--json FILE] [--seconds S] [--models NAME ...] [--threads N ...] [--seed N]

The ways are measured in turn, round after round, and each ratio is one of neighbours in the same round, so that a busy
machine slows both sides alike. What each row measures, and what it leaves out, is in ``benchmarks/README.md``.
"""

import argparse
import copy
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import safetensors.torch
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import dts_mini as dts
from benchmarks.compress import MIB, Times, clock, commit, drop_from_cache, hardware, make_states
from dts_mini.core.file import write_json
from dts_mini.serving import Base, Expert, Server, Swapper, run, unpacked

MODELS = {"mini": (32, 8, 192, 4, 6), "ViT-B/32": (224, 32, 768, 12, 12)}  # image, patch, width, layers, heads
OUTPUT = {"mini": 128, "ViT-B/32": 512}
METHODS = {"dts": {"keep_ratio": 0.1}, "drc": {"budget": "1%"}}
BATCHES, TASKS, MANY = (1, 8, 32), 8, 100
# Of the issue: median ratio at most.
GOALS = {"on the fly / base, batch 32": 1.2, "mixed / base, batch 32": 1.5, "memory / files": 1.2}
GOALS |= {"swap / read": 1 / 3, "swap, unpacked / read": 1 / 3}


def tower(model: str) -> nn.Module:
    """open_clip's image tower at one of the two sizes, random."""
    image, patch, width, layers, heads = MODELS[model]
    built = VisionTransformer(image, patch, width, layers, heads, 4.0, output_dim=OUTPUT[model])
    return built.eval().requires_grad_(False)


def prepare(model: str, method: str, seed: int, folder: Path) -> tuple[nn.Module, Path, Path]:
    """The base in a module, the file of an expert's delta, and the expert's own file (float32)."""
    module = tower(model)
    base, expert = make_states(seed, {name: tuple(x.shape) for name, x in module.state_dict().items()})
    module.load_state_dict(base)
    files = folder / "task.dts.safetensors", folder / "expert.safetensors"
    dts.compress(module.state_dict(), expert, method=method, **METHODS[method]).save(files[0])
    safetensors.torch.save_file(expert, files[1])
    return module, *files


def in_turn(ways: dict[str, Callable[[int], object]], seconds: float) -> dict[str, list[Times]]:
    """The times of each way, round after round: at least five, and until the seconds are over. The first is a warm-up."""
    found: dict[str, list[Times]] = {name: [] for name in ways}
    start = time.perf_counter()
    for turn in count():
        for name, way in ways.items():
            taken = clock(lambda way=way, turn=turn: way(turn))[0]
            if turn:
                found[name].append(taken)
        if turn >= 5 and (time.perf_counter() - start > seconds or turn >= 200):
            return found


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"low": low, "median": middle, "high": high}


def ratios(found: dict[str, list[Times]], upper: str, lower: str) -> dict:
    """Median and quartiles, of wall and of processor time; a read waits: its wall time is what both are held against."""
    pairs = list(zip(found[upper], found[lower], strict=True))
    return {
        "wall": quartiles([a.wall / b.wall for a, b in pairs]),
        "cpu": quartiles([a.cpu / (b.wall if "read" in lower else b.cpu) for a, b in pairs]),
    }


def medians(found: dict[str, list[Times]]) -> dict:
    return {
        name: {kind: statistics.median(getattr(value, kind) for value in values) for kind in Times._fields}
        for name, values in found.items()
    }


def flops(work: Callable[[], object]) -> int:
    """Operations of matrix products and convolutions, a multiplication and an addition being two."""
    in_place = lambda y, a, b, out_shape=None, **_: 2 * a[0] * a[1] * b[1]
    torch.backends.mha.set_fastpath_enabled(False)  # it is one function, in which nothing is counted
    try:
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops()


def requests(module: nn.Module, file: Path, image: int, seconds: float) -> dict:
    """A request each way, for every batch size: the next one is always for another task."""
    deltas = [dts.load(file) for _ in range(TASKS)]
    base, other = Base(module), copy.deepcopy(module)  # the other is written to
    experts, swapper, plain = [Expert(base, delta) for delta in deltas], Swapper(other), list(map(unpacked, deltas))
    result = {}
    for batch in BATCHES:
        x = torch.randn(batch, 3, image, image)
        mixture = [experts[i % TASKS] for i in range(batch)]

        def swapped(turn: int, held: list, x: Tensor = x) -> Tensor:
            swapper.to(held[turn % TASKS])
            return other(x)

        ways = {
            "base": lambda turn, x=x: module(x),
            "swap": lambda turn, swapped=swapped: swapped(turn, deltas),
            "swap, unpacked": lambda turn, swapped=swapped: swapped(turn, plain),
            "on the fly": lambda turn, x=x: run(experts[turn % TASKS], x),
        }
        if batch > 1:
            ways["mixed"] = lambda turn, x=x, mixture=mixture: run(mixture, x)
        found = in_turn(ways, seconds)
        times = medians(found)
        result[str(batch)] = {
            name: {
                "latency_s": times[name]["wall"],
                "cpu_s": times[name]["cpu"],
                "images_a_second": batch / times[name]["wall"],
                "flops": flops(lambda way=way: way(0)),
                **({} if name == "base" else {"to_base": ratios(found, name, "base")}),
            }
            for name, way in ways.items()
        } | {"rounds": len(found["base"])}
    whole, expert = sum(x.nbytes for x in module.state_dict().values()), experts[0].nbytes
    size = file.stat().st_size
    held = {"base": whole, "swap": 2 * whole + size, "swap, unpacked": 2 * whole + expert}
    held |= {"on the fly": whole + expert, "mixed": whole + TASKS * expert}
    return {"batches": result, "weights_bytes": held, "expert_bytes": expert, "file_bytes": size}


def reading(module: nn.Module, file: Path, expert: Path, seconds: float) -> dict:
    """A swap beside what it replaces: the expert's file, read from the disk into the module."""
    deltas, swapper, tensors = [dts.load(file) for _ in range(TASKS)], Swapper(module), module.state_dict()
    plain = list(map(unpacked, deltas))

    def read(turn: int) -> None:
        for name, x in safetensors.torch.load_file(expert).items():
            tensors[name].copy_(x)

    ways = {
        "swap": lambda turn: swapper.to(deltas[turn % TASKS]),
        "swap, unpacked": lambda turn: swapper.to(plain[turn % TASKS]),
        "load and swap": lambda turn: swapper.to(dts.load(file)),
        "read, in the page cache": read,
    }
    found = {}
    if cold := drop_from_cache(expert):
        # Its file was written and flushed long ago: before each read its pages are dropped, outside the clock.
        dropped = lambda turn: drop_from_cache(expert) and None
        found = in_turn({"drop": dropped, "read from disk": read, **ways}, seconds)
        del found["drop"]
    else:
        found = in_turn(ways, seconds)
    result = {"times": medians(found), "rounds": len(found["swap"])}
    for name in ("read from disk", "read, in the page cache")[not cold :]:
        result |= {f"{way} / {name}": ratios(found, way, name) for way in list(ways)[:3]}
    return result


def resident() -> int:
    """Bytes of this process in memory, 0 where the system does not say."""
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return 0


def give_back() -> None:
    """Has the C library return to the system what it keeps of memory that was freed, where it can (glibc)."""
    gc.collect()
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def serve_many(model: str, seed: int, file: str) -> None:
    """Run in a process of its own: prints what a server of a hundred tasks holds, by its count and by the system's."""
    module, size = tower(model), Path(file).stat().st_size
    base, _ = make_states(seed, {name: tuple(x.shape) for name, x in module.state_dict().items()})
    module.load_state_dict(base)
    del base, _
    image = MODELS[model][0]
    x = torch.randn(1, 3, image, image)
    files = {f"task {i}": file for i in range(MANY)}
    warm = Server(module, {"task": file}, memory=2**40)
    for _ in range(2):
        warm("task", x)  # the libraries' own buffers, and what decoding and a forward need for a moment
    room = warm.expert("task").nbytes  # the server is given its files' bytes, and as much more as one decoded expert
    del warm
    give_back()
    before = resident()
    server = Server(module, files, memory=MANY * size + room)
    most = 0
    for i in range(MANY):
        server(f"task {7 * i % MANY}", x)
        if i % 10 == 9:
            give_back()
            most = max(most, resident() - before)
    print(json.dumps({"files_bytes": MANY * size, "held_bytes": server.held, "resident_bytes": most}))


def many(model: str, seed: int, file: Path) -> dict:
    code = f"from benchmarks.serving import serve_many; serve_many({model!r}, {seed}, {str(file)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def goals(found: dict) -> list[dict]:
    """Each goal of one model, method and number of threads: what was measured, and whether it was reached."""
    largest = found["batches"][str(BATCHES[-1])]
    measured = {
        "on the fly / base, batch 32": largest["on the fly"]["to_base"],
        "mixed / base, batch 32": largest["mixed"]["to_base"],
        "swap / read": found["reading"].get("swap / read from disk"),
        "swap, unpacked / read": found["reading"].get("swap, unpacked / read from disk"),
    }
    rows = [
        {"goal": name, "at_most": GOALS[name], **ratio, "reached": ratio["wall"]["median"] <= GOALS[name]}
        for name, ratio in measured.items()
        if ratio
    ]
    held = found["many"]["held_bytes"] / found["many"]["files_bytes"]
    system = found["many"]["resident_bytes"] / found["many"]["files_bytes"]
    bound = GOALS["memory / files"]
    row = {
        "goal": "memory / files",
        "at_most": bound,
        "held": held,
        "resident": system,
        "reached": max(held, system) <= bound,
    }
    return [*rows, row]


def show(found: dict) -> None:
    print(f"\n{found['model']}, {found['method']} at {found['share']:.2%}, {found['threads']} threads")
    for batch, ways in found["batches"].items():
        for name, way in ways.items():
            if name != "rounds":
                times = f"{1e3 * way['latency_s']:9.1f} ms {way['images_a_second']:9.1f} images/s {way['flops'] / 1e9:8.2f} GFLOP"
                ratio = f"  {way['to_base']['wall']['median']:.2f} x base" if "to_base" in way else ""
                print(f"  batch {batch:>2}  {name:14} {times}{ratio}")
    for name, value in found["weights_bytes"].items():
        print(f"  weights   {name:14} {value / MIB:9.1f} MiB")
    for name, value in found["reading"]["times"].items():
        print(f"  {name:24} {1e3 * value['wall']:8.1f} ms, CPU {1e3 * value['cpu']:8.1f} ms")
    for row in found["goals"]:
        verdict = "reached" if row["reached"] else "MISSED"
        if "wall" in row:
            wall, cpu = row["wall"], row["cpu"]
            text = f"{wall['median']:.2f} ({wall['low']:.2f} to {wall['high']:.2f}), CPU {cpu['median']:.2f}"
        else:
            text = f"{row['held']:.2f} by count, {row['resident']:.2f} resident"
        print(f"  {row['goal']:28} <= {row['at_most']:.2f}   {text:44} {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements here as well")
    parser.add_argument("--seconds", type=float, default=10, help="for each batch size, five rounds at least (10)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1], help="of the processor, in turn (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (0)")
    args = parser.parse_args()
    hard = hardware()
    result = {"hardware": hard, "commit": commit(), "seed": args.seed, "goals": GOALS, "runs": []}
    print(
        f"{hard['cpu']}, {hard['cores']} cores, load {hard['load_average_before']}, torch {hard['torch']}, {hard['system']}"
    )
    for model in args.models:
        for method in METHODS:
            with tempfile.TemporaryDirectory() as folder:
                module, file, expert = prepare(model, method, args.seed, Path(folder))
                share = file.stat().st_size / sum(x.nbytes for x in module.state_dict().values())
                held = many(model, args.seed, file)
                for threads in args.threads:
                    torch.set_num_threads(threads)
                    found = {"model": model, "method": method, "threads": threads, "share": share, "many": held}
                    found |= requests(module, file, MODELS[model][0], args.seconds)
                    found["reading"] = reading(copy.deepcopy(module), file, expert, args.seconds)
                    found["goals"] = goals(found)
                    result["runs"].append(found)
                    show(found)
                    sys.stdout.flush()
                    result["load_average_after"] = hardware()["load_average_before"]
                    if args.json:
                        write_json(result, args.json, overwrite=True)


if __name__ == "__main__":
    main()
