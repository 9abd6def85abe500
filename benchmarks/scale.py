"""Compress and rebuild models of full size from disk: time, memory, bytes, workers, and LoRA extraction beside them.

    python -m benchmarks.scale [--models NAME ...] [--drc] [--smoke] [--json FILE] [--folder DIR] [--keep-ratio R]

What is published is in ``data/scale.json``, and in the README here (``python -m benchmarks.readme``).

Weights are random with the names and shapes of the real models; the expert is the base plus, for each matrix, a product
of rank 64 with falling weights and noise of half its norm. Each measurement runs in a process of its own. What the rows
measure, and what they leave out, is in ``benchmarks/README.md``.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.compress import clock, commit, hardware, resident_peak
from dts_mini.core.compress import compress
from dts_mini.core.delta import Rebuilt, load, storage
from dts_mini.core.dts import rank_of
from dts_mini.core.errors import FileError
from dts_mini.core.file import read_bytes, write_json
from dts_mini.core.state import compute_dtype
from dts_mini.streaming.checkpoint import open_checkpoint, save_checkpoint
from dts_mini.streaming.cluster import workers

GB = 10**9
SHARD = 10**9  # bytes of the tensors of a shard, as most models on the Hub are cut
PATH = Path(__file__).parents[1] / "data/scale.json"
MODELS = {
    "vit-b-32": ("ViT-B-32", torch.float32),
    "vit-b-16": ("ViT-B-16", torch.float32),
    "vit-l-14": ("ViT-L-14", torch.float32),
    "gpt2-xl": ({"n_embd": 1600, "n_layer": 48, "n_head": 25}, torch.float16),
}


def shapes(model: str, smoke: bool) -> dict[str, Tensor]:
    """Meta tensors of a model: open_clip's visual tower, or transformers' GPT-2 with the tied head left out.

    ``smoke``: of each list of layers the first alone, and no tensor with a side above 2,048: to try this command.
    """
    config, dtype = MODELS[model]
    with torch.device("meta"):
        if isinstance(config, str):
            import open_clip

            state = open_clip.create_model(config, device="meta").visual.state_dict()
        else:
            from transformers import GPT2Config, GPT2LMHeadModel

            state = GPT2LMHeadModel(GPT2Config(**config)).state_dict()
            del state["lm_head.weight"]
        state = {name: tensor.to(dtype) for name, tensor in state.items()}
        if smoke:
            first = lambda name: not any(part.isdigit() and part != "0" for part in name.split("."))
            state = {
                name: torch.empty([min(side, 2048) for side in tensor.shape], dtype=dtype)
                for name, tensor in state.items()
                if first(name)
            }
    return state


class Random(Mapping[str, Tensor]):
    """A state dict that is drawn a tensor at a time: the base, or the base moved by a synthetic task vector."""

    def __init__(self, outline: dict[str, Tensor], seed: int, moved: bool) -> None:
        self.outline, self.seed, self.moved = outline, seed, moved

    def __getitem__(self, name: str) -> Tensor:
        like = self.outline[name]
        key = hashlib.sha256(f"{self.seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
        randn = lambda *shape: torch.randn(*shape, generator=generator)
        x = 0.02 * randn(*like.shape)
        if self.moved:
            delta = randn(*like.shape)
            if like.dim() == 2:
                rank = min(64, *like.shape)
                low = randn(like.shape[0], rank) / torch.arange(1, rank + 1) @ randn(rank, like.shape[1])
                delta = delta.mul_(0.5 * low.norm() / delta.norm()).add_(low)
            x += delta.mul_(0.002 / delta.square().mean().sqrt())
        return x.to(like.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.outline)

    def __len__(self) -> int:
        return len(self.outline)


def cut(outline: dict[str, Tensor]) -> dict[str, list[str]]:
    """Shards of at most ``SHARD`` bytes, or of one tensor, in order."""
    parts, size = [[]], 0
    for name, tensor in outline.items():
        if parts[-1] and size + tensor.nbytes > SHARD:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += tensor.nbytes
    return {f"model-{i:05}-of-{len(parts):05}.safetensors": names for i, names in enumerate(parts, 1)}


def check_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.1 * need:
        raise FileError(f"{folder}: has {free / GB:.1f} GB free, {1.1 * need / GB:.1f} GB are needed; pass --folder")


# --- what runs in processes of its own: each prints one JSON object ---


def run_compress(folder: Path, keep_ratio: float, out: str, scheduler: str | None = None) -> dict:
    before = resident_peak()
    states = [open_checkpoint(folder / name) for name in ("base", "expert")]

    def work() -> None:
        if scheduler is None:
            compress(*states, keep_ratio=keep_ratio).save(folder / out)
            return
        with workers(scheduler) as mapper:
            compress(*states, keep_ratio=keep_ratio, mapper=mapper).save(folder / out)

    times, _ = clock(work)
    digest = hashlib.sha256((folder / out).read_bytes()).hexdigest()
    return {**times._asdict(), "peak": resident_peak(), "imports": before, "sha256": digest}


def run_drc(folder: Path, keep_ratio: float) -> dict:
    """DRC to the bytes of the DTS file, so that times are compared at equal bytes on disk."""
    before, budget = resident_peak(), (folder / "one.dts.safetensors").stat().st_size
    states = [open_checkpoint(folder / name) for name in ("base", "expert")]
    times, path = clock(lambda: compress(*states, method="drc", budget=budget).save(folder / "drc.dts.safetensors"))
    return {**times._asdict(), "peak": resident_peak(), "imports": before, "bytes": path.stat().st_size}


def run_workers(folder: Path, keep_ratio: float, count: int) -> dict:
    from distributed import LocalCluster

    options = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(memory_limit=None, **options) as cluster:
        return run_compress(folder, keep_ratio, f"workers-{count}.dts.safetensors", cluster.scheduler_address)


def run_rebuild(folder: Path, keep_ratio: float) -> dict:
    before, base = resident_peak(), open_checkpoint(folder / "base")
    work = lambda: save_checkpoint(
        Rebuilt(base, load(folder / "one.dts.safetensors")), folder / "rebuilt", base.shards, metadata=base.metadata
    )
    times, _ = clock(work)
    return {**times._asdict(), "peak": resident_peak(), "imports": before}


def run_lora(folder: Path, keep_ratio: float, all_layers: bool) -> dict:
    """LoRA extraction, as PEFT users do it: B and A in float16 of an economy SVD of each matrix, at the same rank.

    Unless ``all_layers`` is set, of the matrices outside the layers and of the first layer alone; ``compress`` is
    timed on the same ones. Other tensors are left out by both.
    """
    states = [open_checkpoint(folder / name) for name in ("base", "expert")]
    inner = lambda name: any(part.isdigit() and part != "0" for part in name.split("."))
    names = [n for n, t in states[0].outline.items() if t.dim() == 2 and (all_layers or not inner(n))]

    def extract() -> tuple[int, float]:
        size, error, energy = 0, 0.0, 0.0
        for name in names:
            base, expert = (state[name] for state in states)
            x = expert.to(compute_dtype(expert)) - base.to(compute_dtype(base))
            u, s, vh = torch.linalg.svd(x, full_matrices=False)
            rank = rank_of(x.shape, keep_ratio)
            b, a = ((u[:, :rank] * s[:rank].sqrt()).half(), (s[:rank].sqrt()[:, None] * vh[:rank]).half())
            size += b.nbytes + a.nbytes
            error += (x - b.float() @ a.float()).square().sum().item()
            energy += x.square().sum().item()
        return size, (error / energy) ** 0.5

    theirs, (size, error) = clock(extract)
    lora_peak = resident_peak()
    ours, delta = clock(lambda: compress(*({n: state[n] for n in names} for state in states), keep_ratio=keep_ratio))
    wrong = energy = 0.0
    for name in names:
        x = states[1][name].float() - states[0][name].float()
        wrong += (x - delta.remainder(name)).square().sum().item()
        energy += x.square().sum().item()
    return {
        "matrices": len(names),
        "lora": {**theirs._asdict(), "bytes": size, "error": error, "peak": lora_peak},
        "dts": {**ours._asdict(), "bytes": len(delta.to_bytes()), "error": (wrong / energy) ** 0.5},
    }


RUNS = {"compress": run_compress, "drc": run_drc, "workers": run_workers, "rebuild": run_rebuild, "lora": run_lora}


def apart(run: str, *arguments: object) -> dict:
    """The result of one of ``RUNS`` in a fresh process, whose memory is then its own."""
    line = [sys.executable, "-m", "benchmarks.scale", "--run", run, *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def measure(model: str, folder: Path, o: argparse.Namespace) -> dict:
    """All measurements of one model, whose files are written into ``folder``."""
    outline = shapes(model, o.smoke)
    size, largest = sum(t.nbytes for t in outline.values()), max(outline.values(), key=lambda t: t.numel())
    check_space(folder, 3 * size)
    for name, moved in (("base", False), ("expert", True)):
        print(f"{model}: writing the {name}", file=sys.stderr, flush=True)
        save_checkpoint(Random(outline, o.seed, moved), folder / name, cut(outline))
    result = {
        "parameters": sum(t.numel() for t in outline.values()),
        "bytes": size,
        "shards": len(cut(outline)),
        "largest_tensor": {"shape": list(largest.shape), "stored": largest.nbytes, "float32": 4 * largest.numel()},
        "compress": apart("compress", folder, o.keep_ratio, "one.dts.safetensors"),
    }
    counts = storage(load(folder / "one.dts.safetensors"))
    if o.drc:
        result["drc"] = apart("drc", folder, o.keep_ratio)
    result["delta"] = {"bytes": counts.file, "share": counts.share()}
    result["rebuild"] = apart("rebuild", folder, o.keep_ratio)
    shutil.rmtree(folder / "rebuilt")
    result["workers"] = {count: apart("workers", folder, o.keep_ratio, count) for count in (1, 2)}
    result["lora"] = apart("lora", folder, o.keep_ratio, int(o.lora_all))
    return result


def report(model: str, found: dict) -> str:
    """The measurements of one model in words, goals first."""
    largest, one, many = found["largest_tensor"], found["compress"], found["workers"]
    lora, dts = found["lora"]["lora"], found["lora"]["dts"]
    same = len({one["sha256"], *(run["sha256"] for run in many.values())}) == 1
    lines = [
        f"\n{model}: {found['parameters'] / 1e6:,.1f} M parameters, {found['bytes'] / GB:.2f} GB in {found['shards']} files"
    ]
    for what in ("compress", "rebuild"):
        peak, goal = found[what]["peak"], 2 * largest["stored"] + GB
        verdict = "met" if peak <= goal else f"missed by {(peak - goal) / 1e6:,.0f} MB"
        lines.append(
            f"  {what:<9} {found[what]['wall']:8.1f} s, {found[what]['cpu']:8.1f} s CPU; peak {peak / 1e6:,.0f} MB, of them "
            f"imports {found[what]['imports'] / 1e6:,.0f}; goal 2 x largest tensor + 1 GB = {goal / 1e6:,.0f} MB: {verdict}"
        )
    if drc := found.get("drc"):
        times, verdict = drc["cpu"] / one["cpu"], "met" if drc["cpu"] <= 3 * one["cpu"] else "missed"
        lines.append(
            f"  DRC       {drc['wall']:8.1f} s, {drc['cpu']:8.1f} s CPU; {times:.2f} times that of DTS to the same bytes "
            f"({drc['bytes']:,}); goal 3: {verdict}; peak {drc['peak'] / 1e6:,.0f} MB"
        )
    lines += [
        f"  delta     {found['delta']['bytes']:,} bytes, {found['delta']['share']:.2%} of the float32 expert",
        f"  workers   1: {many['1']['wall']:.1f} s, 2: {many['2']['wall']:.1f} s "
        f"({many['1']['wall'] / many['2']['wall']:.2f} times faster); the bytes of one process: {'yes' if same else 'NO'}",
        f"  LoRA      {found['lora']['matrices']} matrices: {lora['wall']:.1f} s against {dts['wall']:.1f} s "
        f"({lora['wall'] / dts['wall']:.1f} times), {lora['bytes']:,} bytes against {dts['bytes']:,} "
        f"({lora['bytes'] / dts['bytes']:.1f} times), relative error {lora['error']:.3f} against {dts['error']:.3f}",
    ]
    return "\n".join(lines)


def markdown(published: Mapping[str, Mapping]) -> str:
    """Measurements of several models as a Markdown table, a column each, and what they ran on."""
    met = lambda value, bound: "" if value <= bound else ", **missed**"
    times = lambda run: f"{run['wall']:.1f} s ({run['cpu']:.1f} s)"

    def column(found: Mapping) -> dict[str, str]:
        one, many, lora, dts = found["compress"], found["workers"], found["lora"]["lora"], found["lora"]["dts"]
        goal = 2 * found["largest_tensor"]["stored"] + GB
        peak = lambda run: f"{run['peak'] / 1e6:,.0f} MB of {goal / 1e6:,.0f}{met(run['peak'], goal)}"
        same = len({one["sha256"], *(run["sha256"] for run in many.values())}) == 1
        return {
            "parameters, bytes, files": f"{found['parameters'] / 1e6:,.1f} M, {found['bytes'] / GB:.2f} GB, {found['shards']}",
            "compress: wall (CPU) time": times(one),
            "compress: peak memory, of the goal": peak(one),
            "delta": f"{found['delta']['bytes'] / 1e6:.2f} MB, {found['delta']['share']:.2%}",
            "rebuild: wall (CPU) time": times(found["rebuild"]),
            "rebuild: peak memory, of the goal": peak(found["rebuild"]),
            "DRC to the same bytes: CPU time, of 3 times that of DTS": "not measured"
            if "drc" not in found
            else f"{found['drc']['cpu'] / one['cpu']:.2f} times{met(found['drc']['cpu'], 3 * one['cpu'])}",
            "DRC: peak memory, of the goal": peak(found["drc"]) if "drc" in found else "not measured",
            "two workers against one": f"{many['1']['wall'] / many['2']['wall']:.2f} times as fast, "
            + ("same bytes" if same else "**other bytes**"),
            "LoRA of the same rank: CPU time, bytes": f"{lora['cpu'] / dts['cpu']:.1f} times, "
            f"{lora['bytes'] / dts['bytes']:.1f} times",
            "relative error, LoRA and DTS": f"{lora['error']:.3f}, {dts['error']:.3f}",
            "load before, threads": f"{found['provenance']['hardware']['load_average_before']}, "
            f"{found['provenance']['hardware']['threads']}",
            "commit": found["provenance"]["commit"][:8],
        }

    columns = {model: column(found) for model, found in published.items()}
    rows = list(next(iter(columns.values())))
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += ["| " + " | ".join([row, *(column[row] for column in columns.values())]) + " |" for row in rows]
    machines = {f"{h['cpu']}, {h['cores']} cores" for h in (f["provenance"]["hardware"] for f in published.values())}
    ratios = {f["provenance"]["keep_ratio"] for f in published.values()}
    about = f"Keep ratio {', '.join(map(str, sorted(ratios)))}; on {' and '.join(sorted(machines))}."
    return "\n".join(lines) + f"\n\n{about}\n"


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run, folder, keep_ratio, *rest = sys.argv[2:]
        rest = [int(x) if x.isdigit() else x for x in rest]
        print(json.dumps(RUNS[run](Path(folder), float(keep_ratio), *rest)))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--smoke", action="store_true", help="one layer of each model, small: to try the command")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also put the measurements into this file")
    parser.add_argument(
        "--folder", type=Path, help="where the checkpoints lie meanwhile (up to 10 GB; default: temporary)"
    )
    parser.add_argument("--keep-ratio", type=float, default=0.1)
    parser.add_argument(
        "--lora-all", action="store_true", help="extract LoRA from every layer, not from the first alone"
    )
    parser.add_argument("--drc", action="store_true", help="also compress by DRC, to the bytes of the DTS file")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default 0)")
    o = parser.parse_args()
    source = commit()  # before the first result is written, which may lie in the repository
    for model in o.models:
        about = {"made": datetime.now(UTC).isoformat(timespec="seconds"), "commit": source, "hardware": hardware()}
        about |= {"keep_ratio": o.keep_ratio, "seed": o.seed, "smoke": o.smoke, "lora_all": o.lora_all}
        with tempfile.TemporaryDirectory(dir=o.folder) as folder:
            found = json.loads(json.dumps(measure(model, Path(folder), o)))
        print(report(model, found), flush=True)
        if o.json:  # models of earlier runs stay, each with its own provenance
            held = json.loads(read_bytes(o.json)) if o.json.exists() else {}
            held[model] = found | {"provenance": about}
            write_json({name: held[name] for name in MODELS if name in held}, o.json, overwrite=True)


if __name__ == "__main__":
    main()
