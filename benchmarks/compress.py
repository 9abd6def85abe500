"""Time and memory of compress and rebuild on the shapes of CLIP ViT-B/32's visual tower: ``make bench``.

    python -m benchmarks.compress [--json FILE] [--repeats N] [--seed N] [--no-plain]

What is published is in ``data/compress.json``, and in the README here (``python -m benchmarks.readme``).

Everything is measured side by side in one run, so that a busy machine slows both sides of a ratio alike.
What each row measures, and what it leaves out, is in ``benchmarks/README.md``.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

import dts_mini as dts
from benchmarks import plain
from dts_mini.core.file import write_json

KEEP_RATIO = 0.1
MIB = 2**20
PATH = Path(__file__).parents[1] / "data/compress.json"
State = dict[str, Tensor]


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of open_clip's ViT-B/32 visual tower: 87.85 M parameters."""
    width, layers = 768, 12
    result = {
        "class_embedding": (width,),
        "positional_embedding": (50, width),
        "proj": (width, 512),
        "conv1.weight": (width, 3, 32, 32),
        "ln_pre.weight": (width,),
        "ln_pre.bias": (width,),
    }
    block = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    for layer in range(layers):
        result |= {f"transformer.resblocks.{layer}.{name}": shape for name, shape in block.items()}
    return result | {"ln_post.weight": (width,), "ln_post.bias": (width,)}


def make_states(seed: int, of: dict[str, tuple[int, ...]] | None = None) -> tuple[State, State]:
    """A random base of these shapes (ViT-B/32's), and base + delta as expert; of a matrix: rank 64, s falling as 1/i, plus noise.

    The noise of a matrix has half the norm of its low-rank share; other tensors differ by noise alone.
    """
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    base = {name: 0.02 * randn(*shape) for name, shape in (of or shapes()).items()}
    expert = {}
    for name, x in base.items():
        delta = randn(*x.shape)
        if x.dim() == 2:
            rank = min(64, *x.shape)
            low = randn(x.shape[0], rank) / torch.arange(1, rank + 1) @ randn(rank, x.shape[1])
            delta = low + delta * (0.5 * low.norm() / delta.norm())
        expert[name] = x + delta * (0.002 / delta.square().mean().sqrt())
    return base, expert


class Times(NamedTuple):
    """Seconds on the wall, and of processor time (all threads): what a call costs however busy the machine is."""

    wall: float
    cpu: float


def clock(work: Callable[[], object]) -> tuple[Times, object]:
    """The seconds of a call, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu), result


def spread(ratios: list[float]) -> dict[str, float]:
    return {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)}


def pairs(base: State, expert: State) -> dict:
    """``compress`` beside the plain implementation with each of its SVDs, part by part: twelve blocks and the rest.

    Each part is timed by all in turn, so that the twelve like blocks are twelve pairs.
    """
    block = lambda name: ".".join(name.split(".")[:3]) if name.startswith("transformer") else "rest"
    times: dict[str, list[Times]] = {name: [] for name in ("dts_mini", *plain.SVDS)}
    error, energy = dict.fromkeys(times, 0.0), 0.0
    for part in sorted({block(name) for name in base}):
        b, e = ({name: x for name, x in state.items() if block(name) == part} for state in (base, expert))
        seconds, delta = clock(lambda b=b, e=e: dts.compress(b, e, keep_ratio=KEEP_RATIO))
        times["dts_mini"].append(seconds)
        rebuilt = {"dts_mini": delta.remainder}
        for svd, of in plain.SVDS.items():
            seconds, parts = clock(lambda b=b, e=e, of=of: plain.compress(b, e, KEEP_RATIO, of))
            times[svd].append(seconds)
            rebuilt[svd] = lambda name, parts=parts: plain.remainder(parts[name])
        for name in b:
            x = e[name] - b[name]
            energy += x.square().sum().item()
            for who, remainder in rebuilt.items():
                error[who] += (x - remainder(name)).square().sum().item()
    result = {"error": {who: (value / energy) ** 0.5 for who, value in error.items()}}
    for kind in Times._fields:
        of = {who: [getattr(t, kind) for t in found] for who, found in times.items()}
        result[kind] = {"dts_mini_s": sum(of["dts_mini"])}
        for svd in plain.SVDS:
            ratios = [y / x for x, y in zip(of["dts_mini"], of[svd], strict=True)]
            both = {"plain_s": sum(of[svd]), "ratio": sum(of[svd]) / sum(of["dts_mini"]), "pairs": spread(ratios)}
            result[kind][svd] = both
    return result


def resident_peak() -> int:
    """Bytes of the greatest resident size of this process."""
    try:  # unlike ru_maxrss, this does not begin with the size of the process that started us
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_of_compress(base: str, expert: str) -> None:
    """Run in a process of its own: prints the bytes that loading and compressing needed beyond the imports."""
    torch.linalg.svd(torch.randn(8, 8))  # the libraries' own buffers belong to the imports
    before = resident_peak()
    states = (safetensors.torch.load_file(path) for path in (base, expert))
    dts.compress(*states, keep_ratio=KEEP_RATIO)
    print(resident_peak() - before)


def memory(base: Path, expert: Path) -> dict:
    """The peak of ``compress`` in a fresh process, and the bytes of its two arguments."""
    code = f"from benchmarks.compress import peak_of_compress; peak_of_compress({str(base)!r}, {str(expert)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, states = int(done.stdout), base.stat().st_size + expert.stat().st_size
    return {"peak_bytes": peak, "states_bytes": states, "ratio": peak / states}


def drop_from_cache(path: Path) -> bool:
    """Asks the system to forget a file's pages; whether it could be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def read_everything(path: Path) -> float:
    """Loads a safetensors file and adds up every number: the file is mapped, and pages not touched are not read."""
    return sum(x.sum().item() for x in safetensors.torch.load_file(path).values())


def bytes_from_disk() -> int:
    """Bytes this process has fetched from a disk so far; -1 where the system does not say."""
    try:
        return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])
    except (OSError, KeyError):
        return -1


def rebuilding(base: State, expert_file: Path, delta_file: Path, repeats: int) -> dict:
    """``rebuild`` beside reading the expert's file, cold and warm, and saving and loading the delta; in turn."""
    delta, scratch = dts.load(delta_file), delta_file.with_name("scratch.dts.safetensors")
    times = {name: [] for name in ("rebuild", "load_and_rebuild", "read_cold", "read_warm", "save", "load")}
    fetched = []
    for _ in range(repeats):
        cold, before = drop_from_cache(expert_file), bytes_from_disk()
        seconds = clock(lambda: read_everything(expert_file))[0]
        if cold:
            times["read_cold"].append(seconds)
            fetched.append(bytes_from_disk() - before)
        times["rebuild"].append(clock(lambda: dts.rebuild(base, delta))[0])
        times["read_warm"].append(clock(lambda: read_everything(expert_file))[0])
        times["load_and_rebuild"].append(clock(lambda: dts.rebuild(base, dts.load(delta_file)))[0])
        times["save"].append(clock(lambda: delta.save(scratch, overwrite=True))[0])
        times["load"].append(clock(lambda: dts.load(delta_file))[0])
    times = {name: values for name, values in times.items() if values}
    result = {
        name: {kind: statistics.median(getattr(value, kind) for value in values) for kind in Times._fields}
        for name, values in times.items()
    }
    for name in ("read_cold", "read_warm"):
        if name in times:
            both = list(zip(times["rebuild"], times[name], strict=True))
            result[f"rebuild_to_{name}"] = spread([rebuild.wall / read.wall for rebuild, read in both])
            # Waiting for a disk costs no processor: on a busy machine this is the fairer one (and at one thread).
            result[f"rebuild_cpu_to_{name}"] = spread([rebuild.cpu / read.wall for rebuild, read in both])
    return result | {
        "fetched_from_disk_when_cold": min(fetched, default=-1),
        "expert_file_bytes": expert_file.stat().st_size,
        "delta_file_bytes": delta_file.stat().st_size,
        "repeats": repeats,
    }


def hardware() -> dict:
    """What the numbers depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "safetensors", "numpy")},
    }


def commit() -> str | None:
    """The commit this ran from, with ``+`` where the working tree differs; None outside a repository."""
    git = lambda *args: subprocess.run(
        ["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def table(result: dict) -> list[tuple[str, str, str, str]]:
    """Rows of (what, measured, goal, verdict)."""
    verdict = lambda met: "met" if met else "missed"
    pairs = lambda r, digits: f"(pairs {r['min']:.{digits}f} to {r['max']:.{digits}f})"
    peak, disk, rows = result["memory"], result["rebuild"], []
    seconds = lambda name: f"{disk[name]['wall']:.3f} s, CPU {disk[name]['cpu']:.3f} s"
    if run := result.get("compress"):
        for kind, label in (("wall", "compress"), ("cpu", "the same, CPU time")):
            r = run[kind]
            rows.append((label, f"{r['dts_mini_s']:.2f} s", "", ""))
            for svd in plain.SVDS:
                faster, full = f"{r[svd]['ratio']:.1f} {pairs(r[svd]['pairs'], 1)}", svd == "full"
                goal = (">= 8", verdict(r[svd]["ratio"] >= 8)) if full else ("", "")
                rows.append((f"  plain, {svd} SVD: times as long", faster, *goal))
        of = run["error"]
        worse = of["dts_mini"] / of["full"] - 1
        both = f"{of['dts_mini']:.4f} / {of['full']:.4f}, {worse:+.2%}"
        rows += [("  relative error, dts_mini / plain", both, "<= +0.5 %", verdict(worse <= 0.005))]
        rows += [("  plain, randomised SVD", f"{of['randomised']:.4f}", "", "")]
    rows += [
        ("compress, peak memory", f"{peak['peak_bytes'] / MIB:.0f} MiB", "", ""),
        ("  against base + expert", f"{peak['ratio'] - 1:+.1%}", "<= +25 %", verdict(peak["ratio"] <= 1.25)),
        ("rebuild", seconds("rebuild"), "", ""),
    ]
    for name, label, goal in (("read_cold", "from disk", True), ("read_warm", "from the page cache", False)):
        if name in disk:
            r, cpu = disk[f"rebuild_to_{name}"], disk[f"rebuild_cpu_to_{name}"]
            met = verdict(r["median"] <= 1) if goal else ""
            rows += [
                (f"reading the expert, {label}", seconds(name), "", ""),
                ("  rebuild / read", f"{r['median']:.2f} {pairs(r, 2)}", "<= 1" if goal else "none", met),
                ("  rebuild's CPU time / read", f"{cpu['median']:.2f} {pairs(cpu, 2)}", "", ""),
            ]
    return rows + [
        ("delta file", f"{disk['delta_file_bytes'] / MIB:.2f} MiB", "", ""),
        ("  save", seconds("save"), "", ""),
        ("  load", seconds("load"), "", ""),
        ("  load and rebuild", seconds("load_and_rebuild"), "", ""),
    ]


def markdown(result: dict) -> str:
    """The rows as Markdown, and where they were measured."""
    hard = result["hardware"]
    about = f"{hard['cpu']}, {hard['cores']} cores, {hard['threads']} threads, torch {hard['torch']}"
    lines = ["| | measured | goal | |", "|---|---|---|---|"]
    lines += [
        f"| {what.strip()} | {measured} | {goal} | {verdict} |" for what, measured, goal, verdict in table(result)
    ]
    return (
        "\n".join(
            [*lines, "", f"On {about}; load before: {hard['load_average_before']}; commit {result['commit'][:8]}."]
        )
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compress", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements here as well")
    parser.add_argument("--repeats", type=int, default=5, help="of rebuild, reading, saving and loading (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
    parser.add_argument("--no-plain", action="store_true", help="leave out the slow comparison, a minute or two")
    args = parser.parse_args()

    result = {"hardware": hardware(), "commit": commit(), "seed": args.seed, "keep_ratio": KEEP_RATIO}
    hard = result["hardware"]
    print(f"{hard['cpu']}, {hard['cores']} cores, {hard['threads']} threads, torch {hard['torch']}, {hard['system']}")
    base, expert = make_states(args.seed)
    result["parameters"] = sum(x.numel() for x in base.values())
    print(f"ViT-B/32 visual tower, {result['parameters'] / 1e6:.2f} M parameters, keep ratio {KEEP_RATIO}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.safetensors" for name in ("base", "expert", "task.dts")]
        for state, path in zip((base, expert), files, strict=False):
            safetensors.torch.save_file(state, path)
        result["memory"] = memory(*files[:2])
        dts.compress(base, expert, keep_ratio=KEEP_RATIO).save(files[2])
        result["rebuild"] = rebuilding(base, files[1], files[2], args.repeats)
    if not args.no_plain:
        result["compress"] = pairs(base, expert)
    for what, measured, goal, verdict in table(result):
        print(f"  {what:40} {measured:32} {goal:10} {verdict}".rstrip())
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(result, args.json, overwrite=True)


if __name__ == "__main__":
    main()
