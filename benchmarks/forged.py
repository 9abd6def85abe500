"""Delta files that somebody forged behind a right digest: what opening them ends in, counted.

    python -m benchmarks.forged [--files 10000] [--json data/forged.json]

Files of both methods and of the peers are taken apart, changed in a few places of manifest, table, payloads or header,
and sealed again, so that their digest is right. Each must open as a delta that is whole (written again it is the same, and
rebuilt it has the base's names and shapes, and finite numbers), or be refused by a FileError that names the file.
Anything else counts as wrong. They are opened one after another in processes of their own, with 1 GiB of memory beside
what torch takes (where the system has ``/proc``), so that not even an abort goes uncounted. ``docs/files.md`` tells the
result.
"""

import argparse
import copy
import hashlib
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import dts_mini
from benchmarks.compress import commit, hardware
from dts_mini import FileError, StateError, TaskDelta, compress, rebuild
from dts_mini.core.file import DTYPES, write_bytes, write_json
from dts_mini.core.parts import Exact, Factors, Part, Unchanged
from dts_mini.core.state import fingerprint
from dts_mini.peers import BUDGETED, NATURAL
from dts_mini.peers.peer import Relative

ROOT = Path(__file__).parents[1]
PATH, PAGE = ROOT / "data" / "forged.json", ROOT / "docs" / "files.md"
CHUNK, MEMORY = 2_000, 2**30  # files a process, and the bytes that it may ask for beside what it begins with
OUTCOMES = ("the delta itself", "another delta, whole", "refused")
Sources = Mapping[str, tuple[dict[str, Tensor], bytes]]


class Apart(NamedTuple):
    """A file in its parts: manifest, table, and each tensor's dtype, shape and bytes."""

    manifest: Any
    table: Any
    tensors: dict[str, tuple[str, list[int], bytes]]


@cache
def sources() -> Sources:
    """Honest files, by name, each with its base: every kind of part, setting and peer that a file can hold."""
    torch.manual_seed(0)
    base = {"conv": torch.randn(6, 3, 2, 2), "w": torch.randn(20, 14), "b": torch.randn(33), "s": torch.randn(())}
    base |= {"ids": torch.arange(5), "half": torch.randn(9).half(), "same": torch.ones(3, 2), "on": torch.ones(3) > 2}
    base |= {
        "bn.running_var": torch.rand(4),
        "rows": torch.randn(40, 6),
        "stack": torch.randn(3, 6, 5),
        "e": torch.ones(0),
    }
    moved = lambda seed: {
        name: x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
        if x.is_floating_point() and name != "same"
        else x
        for name, x in base.items()
    }
    expert = moved(1) | {"ids": torch.arange(5) + 1, "on": torch.ones(3) > 0}
    expert["rows"] = base["rows"] + torch.eye(40, 6)[torch.randperm(40)]
    expert["b"] = base["b"] + torch.arange(33) % 3
    tied = lambda state: state | {"z": state["w"]}
    base, expert, other = tied(base), tied(expert), tied(moved(2))
    files = {}
    for name, settings in {
        "dts": {},
        "dts, eight groups a vector": {"groups": 8, "per": "vector", "scale": "mean", "keep_ratio": 0.5},
        "dts, stacks": {"groups": 2, "stacks": ["stack"], "keep": ["half"], "convolutions": "matrix"},
        "drc": {"method": "drc", "budget": 2_200},
        "drc, stacks": {"method": "drc", "budget": 4_000, "stacks": ["stack"]},
    }.items():
        files[name] = base, compress(base, expert, **settings).to_bytes()
    whole = base | {"rotations": torch.polar(torch.ones(3, 2), torch.randn(3, 2))}
    parts: dict[str, Part] = {name: Unchanged() for name in whole}
    parts |= {"w": Factors(torch.randn(20, 3), torch.randn(3, 14), 0.5), "half": Exact(expert["half"])}
    shapes, dtypes = {n: tuple(x.shape) for n, x in whole.items()}, {n: x.dtype for n, x in whole.items()}
    lora = TaskDelta(parts, shapes, dtypes, "lora", {}, fingerprint(whole), "")
    files["factors"] = whole, lora.to_bytes()
    tasks = {"a": expert, "b": other}
    for name, method in (BUDGETED | NATURAL).items():
        peer = method(base, tasks, **({"budget": 5_000} if name in BUDGETED else {}))
        files[name] = peer.base, peer.deltas["a"].to_bytes()
        if peer.shared is not None:
            files[f"{name}, shared"] = peer.base, peer.shared.to_bytes()
    return files


# --- taken apart and sealed again ---


def apart(data: bytes) -> Apart:
    """The parts of a file."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    manifest = json.loads(header.pop("__metadata__")["dts"])
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        tensors[name] = entry["dtype"], entry["shape"], data[begin:end]
    return Apart(manifest, json.loads(zlib.decompress(tensors["table"][2])), tensors)


def sealed(manifest: Any, tensors: Mapping[str, tuple[str, list[int], bytes]]) -> bytes:
    """A file of these, with a right digest."""
    words = list(DTYPES)
    header, body = {}, b""
    for name in sorted(tensors, key=lambda n: (-words.index(tensors[n][0]) if tensors[n][0] in words else 0, n)):
        dtype, shape, held = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(held)]}
        body += held
    if isinstance(manifest, dict):
        manifest = manifest | {"sha256": "0" * 64}
    text = json.dumps({"__metadata__": {"dts": json.dumps(manifest)}} | header).encode()
    text += b" " * (-len(text) % 8)
    return digested(len(text).to_bytes(8, "little") + text + body)


def digested(blank: bytes) -> bytes:
    """The bytes with the digest that they would have, in the place of 64 zeros."""
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


# --- forgeries ---

ODD = [
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    2**31,
    2**40,
    2**63 - 1,
    10**30,
    0.5,
    -0.0,
    1e300,
    "",
    "w",
    "\x1b[2J",
    [],
    [1],
    {},
    [[]],
]


def any_value(r: random.Random) -> Any:
    """Something that may stand in JSON, plausible or not."""
    kinds = [*Part.kinds, "float32", "int64", "bool", "bfloat16", "vector", "0" * 32, float("nan")]
    return r.choice([r.choice(ODD), r.choice(kinds), r.randrange(50), [r.randrange(30) for _ in range(r.randrange(4))]])


def change(r: random.Random, value: Any, depth: int = 0) -> Any:
    """The value changed in one place, anywhere within it."""
    if isinstance(value, dict | list) and value and (depth == 0 or r.random() < 0.8):
        value = copy.copy(value)
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key, deed = r.choice(keys), r.randrange(12)
        if deed == 0:
            del value[key]
        elif deed == 1 and isinstance(value, list):
            value.insert(key, copy.deepcopy(r.choice(value)))
        elif deed == 2 and isinstance(value, list):
            r.shuffle(value)
        elif deed == 3:
            value[key] = copy.deepcopy(value[r.choice(keys)])
        elif deed == 4 and isinstance(value, dict):
            value[r.choice(["more", "\x1b[31m", "paper", "groups"])] = any_value(r)
        else:
            value[key] = change(r, value[key], depth + 1)
        return value
    if isinstance(value, int) and not isinstance(value, bool) and r.random() < 0.5:
        return max(0, value + r.choice([-8, -1, 1, 8])) if r.random() < 0.7 else value * r.choice([2, 10**6, 10**12])
    return any_value(r)


def change_tensors(r: random.Random, tensors: dict) -> dict:
    """Tensors of which one is changed, gone, or more."""
    tensors = dict(tensors)
    name = r.choice(sorted(tensors))
    dtype, shape, held = tensors[name]
    size = {"F32": 4, "I32": 4, "F16": 2, "BF16": 2}.get(dtype, 1)
    match r.randrange(8):
        case 0:
            del tensors[name]
        case 1:
            tensors[r.choice(["bits", "masks", "zeros", "more", "0"])] = "U8", [4], bytes(4)
        case 2:  # shorter, or longer
            count = len(held) // size + r.choice([-5, -1, 1, 4, 64])
            tensors[name] = dtype, [max(count, 0)], (held + held * 8)[: max(count, 0) * size]
        case 3:
            held = bytearray(held)
            start = r.randrange(0, len(held) + 1, size)
            patch = r.choice(
                [b"\xff", b"\0", b"\x7c\0", b"\x7f\x80\0\0"[::-1], b"\xfe\x7f", r.randbytes(8)]
            ) * r.randrange(1, 9)
            tensors[name] = dtype, shape, bytes(held[:start] + patch + held[start + len(patch) :])[: len(held)]
        case 4:
            tensors[name] = dtype, shape, r.choice([b"\xff", b"\0", b"\x01"]) * len(held)
        case 5:
            tensors[name] = r.choice([*DTYPES, "F4", "F8_E8M0"]), shape, held
        case 6:
            other = r.choice(sorted(tensors))
            tensors[name], tensors[other] = tensors[other], tensors[name]
        case _:
            held = bytearray(held)
            for _ in range(r.randrange(1, 4) if held else 0):
                held[r.randrange(len(held))] ^= 1 << r.randrange(8)
            tensors[name] = dtype, shape, bytes(held)
    return tensors


def squeezed(r: random.Random, table: Any) -> bytes:
    """The table as a file holds it; now and then something else in its place."""
    plain = json.dumps(table).encode()
    whole = zlib.compress(plain, 9)
    match r.randrange(60):
        case 0:
            return zlib.compress(plain + b" " * r.choice([1, 10**6, 10**8]), 9)
        case 1:
            return zlib.compress(b"[" * r.choice([10, 10**5, 10**7]), 9)
        case 2:
            return whole[: r.randrange(len(whole))]
        case 3:
            return whole + r.randbytes(r.randrange(1, 9))
        case 4:
            return zlib.compress(b"[" + b'["w","Unchanged",[2],"float32",0],' * 10**5 + b"[]]", 9)
        case 5:
            at = r.randrange(len(plain))
            return zlib.compress(plain[:at] + r.randbytes(1) + plain[at + 1 :], 9)
        case _:
            return whole


def forged(data: bytes, r: random.Random) -> bytes:
    """A file changed in one to three places, its digest right."""
    if r.random() < 0.1:  # anywhere in its bytes
        digest = apart(data).manifest["sha256"].encode()
        at = data.index(digest)
        changed = bytearray(data.replace(digest, b"0" * 64))
        for _ in range(r.randrange(1, 3)):
            place = r.randrange(len(changed))
            if not at <= place < at + 64:
                changed[place] = r.choice([changed[place] ^ 1 << r.randrange(8), r.randrange(256)])
        return digested(bytes(changed))
    manifest, table, tensors = apart(data)
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        match r.randrange(6):
            case 0:
                manifest = change(r, manifest)
            case 1 | 2 | 3:
                table = change(r, table)
            case _:
                tensors = change_tensors(r, tensors)
    if "table" in tensors and r.random() < 0.97:
        text = squeezed(r, table)
        tensors["table"] = "U8", [len(text)], text
    return sealed(manifest, tensors)


# --- what comes of them ---


def outcome(base: Mapping[str, Tensor], honest: bytes, data: bytes, read: Callable[[bytes, str], TaskDelta]) -> str:
    """One of ``OUTCOMES`` where opening these bytes ends in what it may end in; else what went wrong."""
    try:
        delta = read(data, "some.dts.safetensors")
    except FileError as error:
        text = str(error)
        return "refused" if text.startswith("some.dts.safetensors") and text.isprintable() else f"message {text!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    try:
        again = delta.to_bytes()
        if read(again, "some.dts.safetensors").to_bytes() != again:
            return "another file when written again"
        if delta.base == fingerprint(base) and not any(isinstance(part, Relative) for part in delta.parts.values()):
            found = {} if delta.expert == "" and delta.method != "lora" else rebuild(base, delta)
            for name, x in found.items():
                kept = isinstance(delta.resolved(name), Exact)
                if x.shape != base[name].shape or not (kept or x.dtype == torch.float16 or x.isfinite().all()):
                    return f"rebuilt wrong: {name!r}"
    except StateError:
        pass  # of a base that it was not made for, or does not fit
    except BaseException as error:
        return f"after opening, {type(error).__name__}: {error}"
    return OUTCOMES[again != honest]


def measure(first: int, last: int, files: Sources) -> dict:
    """Outcomes of the files of these seeds, the longest time in seconds, and the peak of memory in bytes, beside what there
    was at the beginning."""
    names, counts, wrong, longest = sorted(files), Counter(), [], 0.0
    if (statm := Path("/proc/self/statm")).exists():
        room = int(statm.read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    before = _peak()
    for seed in range(first, last):
        r = random.Random(seed)
        name = names[seed % len(names)]
        base, honest = files[name]
        data = forged(honest, r)
        start = time.process_time()
        found = outcome(base, honest, data, TaskDelta.from_bytes)
        longest = max(longest, time.process_time() - start)
        counts[found if found in OUTCOMES else "anything else"] += 1
        if found not in OUTCOMES:
            wrong.append(f"{seed}, {name}: {found}")
    return {"counts": dict(counts), "longest_s": longest, "memory": _peak() - before, "wrong": wrong}


def _peak() -> int:
    """The most memory that this process has held, in bytes.

    Where there is ``/proc``, of this program alone: elsewhere, and in ``getrusage``, a process begins with the peak of
    the one that started it, in which all that it takes itself may be hidden.
    """
    if (status := Path("/proc/self/status")).exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(count: int, honest: str) -> dict:
    """All files, chunk by chunk in processes of their own; one that dies counts as wrong. ``honest``: where ``sources`` are
    kept, which took memory to make."""
    total, wrong, longest, memory = Counter(dict.fromkeys((*OUTCOMES, "anything else"), 0)), [], 0.0, 0
    for first in range(0, count, CHUNK):
        last = min(first + CHUNK, count)
        command = [sys.executable, "-m", "benchmarks.forged", "--seeds", str(first), str(last), "--sources", honest]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            total["anything else"] += 1
            wrong.append(f"{first} to {last}: the process ended with {done.returncode}: {done.stderr[-300:]}")
            continue
        found = json.loads(done.stdout)
        total.update(found["counts"])
        wrong += found["wrong"]
        longest, memory = max(longest, found["longest_s"]), max(memory, found["memory"])
    return {
        "files": count,
        "kinds": len(sources()),
        "outcomes": dict(total),
        "longest_s": round(longest, 2),
        "memory": memory,
        "wrong": wrong,
        "version": dts_mini.core.container.VERSION,
        "commit": commit(),
        "hardware": {key: value for key, value in hardware().items() if key in ("cpu", "system", "torch")},
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The table of ``docs/files.md``."""
    rows = [f"| {outcome} | {count:,} |" for outcome, count in found["outcomes"].items()]
    rows += [
        f"| longest | {found['longest_s']:.1f} s |",
        f"| most memory that a process took beside torch | {found['memory'] / 2**20:.0f} MiB |",
    ]
    head = f"| {found['files']:,} files, of {found['kinds']} kinds | |\n|---|--:|"
    return "\n".join([head, *rows, "", f"Measured at commit {found['commit'][:12]} on {found['hardware']['cpu']}."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forged", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), help=argparse.SUPPRESS)
    parser.add_argument("--sources", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seeds:
        torch.set_num_threads(1)
        files = torch.load(options.sources, weights_only=True) if options.sources else sources()
        print(json.dumps(measure(*options.seeds, files)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        torch.save({name: (base, data) for name, (base, data) in sources().items()}, f"{folder}/sources.pt")
        result = run(options.files, f"{folder}/sources.pt")
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(result, options.json, overwrite=True)
        if options.json.resolve() == PATH:
            from dts_mini.results import fill  # which takes seconds to import

            write_bytes(fill(PAGE.read_text(), {"forged": markdown(result)}).encode(), PAGE, overwrite=True)
    return int(result["outcomes"]["anything else"] > 0)


if __name__ == "__main__":
    sys.exit(main())
