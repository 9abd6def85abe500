"""Whoever knows the format can make a right digest: what stands behind it is checked before it is used."""

import random
import subprocess
import sys
import zlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import forged
from benchmarks.forged import OUTCOMES, apart, outcome, sealed
from dts_mini import FileError, StateError, TaskDelta, compress, fuse, rebuild
from dts_mini.core.delta import Rebuilt
from dts_mini.core.parts import Kept, Unchanged
from dts_mini.core.state import fingerprint

FLOAT32 = torch.finfo(torch.float32).max


@pytest.fixture(scope="module")
def sources():
    return forged.sources()


def refused(manifest, table, tensors, squeezed: bytes | None = None) -> str:
    """The message of the FileError that a file of these parts is, its digest right."""
    text = zlib.compress(forged.json.dumps(table).encode(), 9) if squeezed is None else squeezed
    data = sealed(manifest, tensors | {"table": ("U8", [len(text)], text)})
    with pytest.raises(FileError) as raised:
        TaskDelta.from_bytes(data, "forged.dts.safetensors")
    message = str(raised.value)
    assert message.startswith("forged.dts.safetensors")
    assert message.isprintable()
    return message


def row(table, kind: str) -> list:
    """A row of the table, whose part is of this kind."""
    return next(row for row in table if row[1] == kind)


# --- any bytes ---


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32 - 1), which=st.integers(0, 10**6))
def test_any_change_behind_a_right_digest_gives_a_whole_delta_or_a_file_error(sources, seed, which):
    base, honest = sources[sorted(sources)[which % len(sources)]]
    data = forged.forged(honest, random.Random(seed))
    assert outcome(base, honest, data, TaskDelta.from_bytes) in OUTCOMES


def test_what_is_forged_are_files_of_every_kind_of_part_and_sealed_unchanged_they_are_themselves(sources):
    assert len(sources) >= 25
    kinds = {row[1] for _, data in sources.values() for row in apart(data).table}
    assert kinds >= {"LowRank", "Flat", "RoundedMatrix", "RoundedFlat", "Submatrix", "Stack", "Tied", "Kept", "Exact"}
    assert kinds >= {
        "Factors",
        "HalfLowRank",
        "Half",
        "Switch",
        "Sparse",
        "Signs",
        "Masked",
        "Offset",
        "Core",
        "Subspace",
    }
    for base, honest in sources.values():
        manifest, _, tensors = apart(honest)
        assert outcome(base, honest, sealed(manifest, tensors), TaskDelta.from_bytes) == OUTCOMES[0]


def test_an_outcome_that_is_none_is_told(sources):
    base, honest = sources["dts"]
    wrong = TaskDelta.from_bytes(honest)
    wrong.parts["s"] = Kept(torch.tensor(float("nan")))
    assert outcome(base, honest, honest, lambda data, what: wrong) not in OUTCOMES
    assert outcome(base, honest, honest, lambda data, what: {}["none"]) == "KeyError: 'none'"


def test_the_run_over_thousands_of_files_tells_what_it_counted():
    command = [sys.executable, "-m", "benchmarks.forged", "--seeds", "0", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=forged.ROOT)
    assert sum(forged.json.loads(done.stdout)["counts"].values()) == 20


# --- of each kind one ---


def test_values_that_are_not_finite_are_refused(sources):
    for kind in (
        "dts",
        "dts, eight groups a vector",
        "drc",
        "factors",
        "T-Switch",
        "TVQ INT2",
        "shared subspace",
        "TSV-C",
    ):
        manifest, table, tensors = apart(sources[kind][1])
        for name in {"values", "halves", "kept"} & tensors.keys() - ({"kept"} if kind != "factors" else set()):
            dtype, shape, held = tensors[name]
            for bad in (b"\xff", b"\x7f\x80\0\0"[::-1] if dtype == "F32" else b"\0\x7c"):
                message = refused(manifest, table, tensors | {name: (dtype, shape, (bad * len(held))[: len(held)])})
                assert "NaN" in message or "beyond float32" in message


def test_finite_values_whose_product_is_not_are_refused(sources):
    manifest, table, tensors = apart(sources["dts"][1])
    dtype, shape, held = tensors["values"]
    large = torch.full((len(held) // 4,), FLOAT32 / 2).numpy().tobytes()
    assert "beyond float32" in refused(manifest, table, tensors | {"values": (dtype, shape, large)})


@pytest.mark.parametrize("kind", ["dts", "drc", "EMR-Merging", "T-Switch"])
def test_a_tensor_left_out_or_called_unchanged_leaves_bytes_over(sources, kind):
    manifest, table, tensors = apart(sources[kind][1])
    for i, (name, is_a, shape, dtype, *_) in enumerate(table):
        if is_a in ("LowRank", "Flat", "RoundedMatrix", "RoundedFlat", "Switch"):
            refused(manifest | {"tensors": len(table) - 1}, table[:i] + table[i + 1 :], tensors)
            refused(manifest, table[:i] + [[name, "Unchanged", shape, dtype, 0]] + table[i + 1 :], tensors)


def test_ties_in_a_circle_to_nothing_and_to_another_shape_are_refused(sources):
    manifest, table, tensors = apart(sources["dts"][1])
    tied = row(table, "Tied")
    for to in (tied[0], "none", "b"):
        tied[-1] = to
        assert f"is tied to {to!r}" in refused(manifest, table, tensors)


def test_a_tie_that_the_base_has_not_is_refused_with_the_base(sources):
    base, honest = sources["dts"]
    delta = TaskDelta.from_bytes(honest)
    other = base | {"z": base["z"] + 1}
    wrong = replace(delta, base=fingerprint(other))
    for use in (rebuild, Rebuilt, lambda base, delta: fuse(base, [delta], [1.0])):
        with pytest.raises(StateError, match="'z' is tied to 'w' in the delta and not in the base"):
            use(other, wrong)


def test_names_and_shapes_are_the_bases(sources):
    base, honest = sources["dts"]
    delta = TaskDelta.from_bytes(honest)
    parts = {name: Unchanged() for name in delta.parts}
    for shapes, made in (
        (delta.shapes | {"w": (14, 20)}, delta.parts),
        (delta.shapes | {"more": (1,)}, parts | {"more": Unchanged()}),
        ({n: s for n, s in delta.shapes.items() if n != "same"}, {n: p for n, p in parts.items() if n != "same"}),
    ):
        wrong = replace(delta, shapes=shapes, parts=made, dtypes=delta.dtypes | {"more": torch.float32})
        with pytest.raises(StateError, match=r"'w' has shape|'more'|'same'"):
            rebuild(base, wrong)


def test_a_large_shape_that_all_counts_agree_with_takes_no_memory_and_fits_no_base():
    base = {"w": torch.zeros(4, 4)}
    manifest, table, tensors = apart(compress(base, {"w": torch.zeros(4, 4)}).to_bytes())
    table[0][2], manifest["storage"]["model"] = [10**6, 10**6], 4 * 10**12
    text = zlib.compress(forged.json.dumps(table).encode(), 9)
    delta = TaskDelta.from_bytes(sealed(manifest, tensors | {"table": ("U8", [len(text)], text)}))
    with pytest.raises(StateError, match="'w' has shape"):
        rebuild(base, delta)


@pytest.mark.parametrize("count", [-1, 10**12, 2**62, 2**80, 1.5, True, None, "7", [3], "nn"])
@pytest.mark.parametrize(
    "kind", ["dts", "dts, stacks", "drc", "factors", "T-Switch", "TVQ INT3", "EMR-Merging", "TSV-C"]
)
def test_counts_beyond_what_is_there_and_what_is_no_count_are_refused(sources, kind, count):
    manifest, table, tensors = apart(sources[kind][1])
    for is_a in {row[1] for row in table} - {"Unchanged", "Exact", "Kept", "Tied"}:
        found = row(table, is_a)
        for place in range(5, len(found)):
            held = found[place]
            if isinstance(held, float) or held == count:
                continue
            found[place] = count
            refused(manifest, table, tensors)
            found[place] = held
        held, found[2] = found[2], [count] * len(found[2])
        refused(manifest, table, tensors)
        found[2] = held


@pytest.mark.parametrize("shape", [[], [20], [280]])
def test_a_matrix_of_less_than_two_dimensions_is_refused(sources, shape):
    for kind in ("dts", "drc", "factors", "TSV-C", "shared subspace", "shared subspace, shared"):
        manifest, table, tensors = apart(sources[kind][1])
        for is_a in {"LowRank", "RoundedMatrix", "Factors", "HalfLowRank", "Core", "Subspace"} & {
            row[1] for row in table
        }:
            row(table, is_a)[2] = shape
            assert "with shape" in refused(manifest, table, tensors)


def test_a_rank_above_the_shorter_side_is_refused_though_its_bytes_are_there():
    base = {"w": torch.zeros(2, 3)}
    manifest, table, tensors = apart(compress(base, {"w": torch.randn(2, 3)}, keep_ratio=1).to_bytes())
    table[0][5] = 3
    tensors["codes"] = "U8", [5], bytes(5)  # 3 vectors of 2 elements and 3 of 3, at 2 bits
    tensors["values"] = "F32", [3 + 8], bytes(4 * 11)
    assert "said to be of rank 3" in refused(manifest, table, tensors)


@pytest.mark.parametrize("kind", ["Joined", "Relative", "Part", "Content", "nn", "Submatrix", "Stack", ""])
def test_kinds_that_no_file_holds_are_refused(sources, kind):
    manifest, table, tensors = apart(sources["dts"][1])
    next(row for row in table if row[0] == "same")[1] = kind
    refused(manifest, table, tensors)


@pytest.mark.parametrize("kind", ["Kept", "Tied", "Exact", "Unchanged", "Stack", "Submatrix", "Flat", "Masked"])
def test_parts_within_parts_are_those_of_matrices_alone(sources, kind):
    manifest, table, tensors = apart(sources["dts"][1])
    row(table, "Submatrix")[5] = kind
    assert f"holds a matrix as {kind!r}" in refused(manifest, table, tensors)
    manifest, table, tensors = apart(sources["dts, stacks"][1])
    row(table, "Stack")[5][0] = kind
    refused(manifest, table, tensors)


def test_places_are_as_many_as_is_said_within_the_tensor_and_rise():
    base = {"list": torch.zeros(200), "mask": torch.zeros(40)}
    expert = {"list": (torch.arange(200) % 60 > 0).float(), "mask": (torch.arange(40) % 2).float()}
    manifest, table, tensors = apart(compress(base, expert).to_bytes())
    dtype, shape, held = tensors["masks"]
    assert "marks" in refused(manifest, table, tensors | {"masks": (dtype, shape, bytes([held[0] ^ 1]) + held[1:])})
    dtype, shape, held = tensors["zeros"]
    assert shape == [4]
    for places in ([0, 60, 120, 200], [0, 120, 60, 180], [0, 60, 60, 180], [-1, 60, 120, 180]):
        text = torch.tensor(places, dtype=torch.int32).numpy().tobytes()
        assert "do not rise" in refused(manifest, table, tensors | {"zeros": (dtype, shape, text)})


@pytest.mark.parametrize("key", ["tensors", "ranks", "rows", "storage", "attention", "settings", "method", "base"])
def test_a_manifest_that_lacks_something_has_more_or_says_what_is_not_so_is_refused(sources, key):
    for kind in ("dts", "drc"):
        manifest, table, tensors = apart(sources[kind][1])
        refused({k: value for k, value in manifest.items() if k != key}, table, tensors)
        refused(manifest | {"more": 1}, table, tensors)
        wrong = {
            "tensors": 3,
            "ranks": [2],
            "rows": 1,
            "attention": "fused",
            "settings": [],
            "method": 3,
            "base": "x" * 32,
        }
        if key != "storage":
            refused(manifest | {key: wrong[key]}, table, tensors)
            continue
        for count, value in manifest["storage"].items():
            for other in (2 * value + 10**4, -1, None):
                refused(manifest | {"storage": manifest["storage"] | {count: other}}, table, tensors)


def test_tensors_beyond_the_known_and_of_other_dtypes_are_refused(sources):
    for _, data in sources.values():
        manifest, table, tensors = apart(data)
        assert "'more'" in refused(manifest, table, tensors | {"more": ("U8", [3], b"abc")})
        assert "empty" in refused(manifest, table, tensors | {"more": ("U8", [0], b"")})
        for name, (_, _, held) in tensors.items():
            data = sealed(manifest, tensors | {name: ("I8", [len(held)], held)})
            with pytest.raises(FileError, match="some: "):
                TaskDelta.from_bytes(data, "some")
        if "codes" in tensors:
            dtype, _, held = tensors["codes"]
            assert "codes" in refused(manifest, table, tensors | {"codes": (dtype, [len(held) + 1], held + b"\0")})


def test_a_table_that_unpacks_to_more_than_it_may_has_no_end_or_nests_without_one_is_refused(sources):
    manifest, table, tensors = apart(sources["dts"][1])
    plain = forged.json.dumps(table).encode()
    whole = zlib.compress(plain, 9)
    assert "has no end" in refused(manifest, table, tensors, zlib.compress(plain + b" " * 2**25, 9))
    for wrong in (
        zlib.compress(b"[" * 10**6),
        whole[:-5],
        whole + b"x",
        b"",
        b"{}",
        plain,
    ):
        refused(manifest, table, tensors, wrong or b"\0")


def test_regular_names_by_the_ten_thousand_are_no_bomb():
    names = [f"model.layers.{i}.mlp.experts.{j}.up_proj.weight" for i in range(48) for j in range(256)]
    table = [[name, "Unchanged", [2048, 768], "bfloat16", 0] for name in names]
    plain = forged.json.dumps(table, separators=(",", ":")).encode()
    assert len(plain) < 2**20 + 25 * len(zlib.compress(plain, 9))


def test_the_range_coder_is_never_asked_for_more_than_its_words_hold(sources):
    manifest, table, tensors = apart(sources["drc"][1])
    dtype, _, held = tensors["integers"]
    rows = manifest["rows"]
    for wrong in (b"\0\0" + held[2:], b"\xff\xff" + held[2:], held[:1], held[: 2 + rows], held + b"\0" * 4, held[:-1]):
        refused(manifest, table, tensors | {"integers": (dtype, [len(wrong)], wrong)})
    for other in (0, rows - 1, rows + 4, 10**12):
        refused(manifest | {"rows": other}, table, tensors)


def test_the_hundred_thousandfold_mask_of_a_small_file_is_refused_before_it_is_laid_out(sources):
    manifest, table, tensors = apart(sources["T-Switch, a scale a tensor"][1])
    row(table, "Switch")[2] = [2**40]
    assert "more than files of this size are read for" in refused(manifest, table, tensors)


@pytest.mark.parametrize("word", ["complex64", "float8_e4m3fn"])
def test_a_tensor_of_a_dtype_that_is_not_computed_with_is_the_bases_or_refused(word):
    held = torch.ones(6, 5).to(getattr(torch, word))
    base = {"w": torch.zeros(6, 5), "v": torch.zeros(6, 5), "n": torch.arange(3), "constant": held}
    expert = base | {"w": torch.ones(6, 5), "v": torch.eye(6, 5), "n": torch.arange(3) + 1}
    manifest, table, tensors = apart(compress(base, expert, keep=["v"]).to_bytes())
    assert {row[0]: row[1] for row in table} == {"constant": "Unchanged", "n": "Kept", "v": "Exact", "w": "LowRank"}
    for row in table:
        if row[1] != "Unchanged":
            refused(manifest, [[*r[:3], word, *r[4:]] if r is row else r for r in table], tensors)


@pytest.mark.parametrize("scale", ["0.1", None, [0.1], {}, 1e39])
def test_a_scale_that_a_file_holds_once_is_a_finite_number(sources, scale):
    manifest, table, tensors = apart(sources["T-Switch"][1])
    refused(manifest | {"settings": manifest["settings"] | {"scale": scale}}, table, tensors)


# --- what a terminal is sent ---


def test_names_reach_messages_and_inspect_without_control_characters(tmp_path, capsys):
    from dts_mini.cli import main

    name = "w\x1b[2J\n\r\u202e\x07"
    base = {name: torch.randn(6, 5), "b": torch.ones(3)}
    path = compress(base, {name: torch.randn(6, 5), "b": torch.zeros(3)}, keep_ratio=0.5).save(
        tmp_path / "d\x1b[2J.dts.safetensors"
    )
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert r"w\x1b[2J\n\r\u202e\x07" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    assert main(["inspect", "--json", str(path)]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.split("\n"))
    assert main(["inspect", str(tmp_path / "none\x1b[2J")]) == 1
    assert capsys.readouterr().err.rstrip("\n").isprintable()
    with pytest.raises(StateError) as raised:
        rebuild({name + "!": base[name], "b": base["b"]}, TaskDelta.from_bytes(path.read_bytes()))
    assert str(raised.value).isprintable()


def test_inspect_opens_the_files_of_peers(tmp_path, sources, capsys):
    from dts_mini.cli import main

    for name in ("T-Switch", "EMR-Merging, shared", "RTVQ B3O2"):
        path = tmp_path / "d.dts.safetensors"
        path.write_bytes(sources[name][1])
        assert main(["inspect", str(path)]) == 0
        assert name.split(",")[0].split()[0] in capsys.readouterr().out
