"""The exercises of notebook 06: an expert in four tensors, and back."""

import math

import torch

from dts_mini.core.paper import decompose, scale, threshold
from dts_mini.course.exercise import Exercise, Wrong, case, difference
from dts_mini.course.exercises.nb05_counting_bits import pack, unpack

NOTEBOOK = "06_your_own_dts"


# --- compressed ---


def compressed(base: dict, expert: dict, keep_ratio: float) -> dict:
    """Two models' tensors by name -> the file's entries: codes (packed), values, zeros and ranks."""
    codes, values, ranks = [], [], []
    for name in sorted(base):
        parts = [expert[name] - base[name]]
        if parts[0].dim() == 2:
            U, s, Vt = decompose(parts[0], keep_ratio)
            parts = [U, Vt]
            values.append(s)
            ranks.append(len(s))
        for part in parts:
            found = threshold(part)
            codes.append(found.flatten())
            values.append(scale(part, found)[:4])
    codes = torch.cat(codes)
    zeros = torch.nonzero(codes == 4).flatten().int()
    return {"codes": pack(codes % 4), "values": torch.cat(values), "zeros": zeros, "ranks": torch.tensor(ranks).int()}


def _compressed(
    base,
    expert,
    keep_ratio,
    *,
    order=sorted,
    strengths_last=False,
    right_first=False,
    zeros=True,
    split=True,
    four=4,
    packed=4,
):
    codes, values, ranks = [], [], []
    for name in order(base):
        parts, s = [expert[name] - base[name]], None
        if parts[0].dim() == 2 and split:
            U, s, Vt = decompose(parts[0], keep_ratio)
            parts = [Vt, U] if right_first else [U, Vt]
            ranks.append(len(s))
        found = [threshold(part) for part in parts]
        fours = [scale(part, groups)[:four] for part, groups in zip(parts, found, strict=True)]
        codes += [groups.flatten() for groups in found]
        values += [] if s is None else [*fours, s] if strengths_last else [s, *fours]
        values += fours if s is None else []
    codes = torch.cat(codes)
    places = torch.nonzero(codes == 4).flatten().int()
    entries = {
        "codes": pack(codes % packed),
        "values": torch.cat(values),
        "ranks": torch.tensor(ranks, dtype=torch.int32),
    }
    return entries | {"zeros": places if zeros else places[:0]}


def _nothing_subtracted(base, expert, keep_ratio):
    return _compressed({name: torch.zeros_like(x) for name, x in base.items()}, expert, keep_ratio)


def _a_byte_a_code(base, expert, keep_ratio):
    entries = compressed(base, expert, keep_ratio)
    total = sum(
        r * sum(base[name].shape)
        for name, r in zip((n for n in sorted(base) if base[n].dim() == 2), entries["ranks"].tolist(), strict=True)
    )
    total += sum(x.numel() for x in base.values() if x.dim() != 2)
    return entries | {"codes": unpack(entries["codes"], total).to(torch.uint8)}


COMPRESSED_WRONG = {
    "My tensors come in another order": lambda base, expert, rho: _compressed(base, expert, rho, order=list),
    "My singular values stand behind the scales": lambda base, expert, rho: _compressed(
        base, expert, rho, strengths_last=True
    ),
    "My V^T comes before U": lambda base, expert, rho: _compressed(base, expert, rho, right_first=True),
    "I pack the code 4": lambda base, expert, rho: _compressed(base, expert, rho, packed=5),
    "My zeros are lost": lambda base, expert, rho: _compressed(base, expert, rho, zeros=False),
    "My matrices are not decomposed": lambda base, expert, rho: _compressed(base, expert, rho, split=False),
    "I have five values for a tensor": lambda base, expert, rho: _compressed(base, expert, rho, four=5),
    "I compress the expert itself": _nothing_subtracted,
    "My codes take a byte each": _a_byte_a_code,
}


def _models(seed: int, shapes: dict, zeros: int = 0) -> tuple[dict, dict]:
    """A base and an expert, float32; of the tensor ``bias`` the first numbers are equal."""
    generator = torch.Generator().manual_seed(seed)
    base = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    expert = {name: x + torch.randn(x.shape, generator=generator) for name, x in base.items()}
    if zeros:
        expert["bias"][:zeros] = base["bias"][:zeros]
    return base, expert


SMALL = _models(1, {"weight": (5, 3), "bias": (6,)}, zeros=2)
TWO = _models(2, {"out.weight": (6, 8), "in.weight": (7, 4), "bias": (5,), "filter": (2, 1, 2, 2)}, zeros=1)
BIASES = _models(3, {"bias": (9,), "a.bias": (4,)}, zeros=2)  # the zeros stand behind another tensor's codes
TYPES = {"codes": torch.uint8, "values": torch.float32, "zeros": torch.int32, "ranks": torch.int32}


def compresses(models, keep_ratio):
    """A check like ``case``, which shows codes and not the bytes that they are packed into."""
    plain, wanted = case(compressed, *models, keep_ratio), compressed(*models, keep_ratio)["codes"]

    def run(candidate):
        try:
            plain(candidate)
        except Wrong as wrong:
            found = candidate(*models, keep_ratio)["codes"] if "under 'codes'" in str(wrong) else None
            raise Wrong(_in_codes(found, wanted) or str(wrong)) from None

    return run


def _in_codes(found, wanted) -> str:
    """'expected ..., got ...' of the first code that differs; '' where nothing else is known."""
    if not isinstance(found, torch.Tensor) or found.shape != wanted.shape or found.dtype != torch.uint8:
        return ""
    mine, codes = (unpack(each, 4 * len(each)) for each in (found, wanted))
    first = int((mine != codes).int().argmax())
    around = lambda row: f"{row[first].item()} (of {row[max(0, first - 3) : first + 4].tolist()})"
    return (
        f"expected, as code number {first} of the long row, {around(codes)}, got {around(mine)}" if len(codes) else ""
    )


def without_a_matrix(candidate):
    found = candidate(*BIASES, 0.5)
    if isinstance(found, dict) and isinstance(empty := found.get("ranks"), torch.Tensor) and not empty.numel():
        found = found | {"ranks": empty.int()}  # of no number there is no type
    wanted = compressed(*BIASES, 0.5)
    if problem := difference(found, wanted):
        raise Wrong(("under 'codes'" in problem and _in_codes(found["codes"], wanted["codes"])) or problem)


def it_takes_two_bits_for_a_code(candidate):
    base, expert = TWO
    entries = candidate(base, expert, 0.5)
    found = entries.get("codes") if isinstance(entries, dict) else entries
    if not isinstance(found, torch.Tensor) or found.dtype != torch.uint8:
        got = getattr(found, "dtype", type(found).__name__)
        raise Wrong(f"expected bytes, torch.uint8, under 'codes', got {got}")
    wanted = len(compressed(base, expert, 0.5)["codes"])
    if found.shape != (wanted,):
        raise Wrong(f"expected {wanted} bytes of codes, got shape {tuple(found.shape)}")


def its_types_are_those_of_the_table(candidate):
    entries = candidate(*SMALL, 0.67)
    for name, wanted in TYPES.items():
        if (found := getattr(entries[name], "dtype", type(entries[name]).__name__)) != wanted:
            raise Wrong(f"expected {wanted} under {name!r}, got {found}: the table of entries says which type each has")


# --- rebuilt ---


def rebuilt(base: dict, file: dict) -> dict:
    """A base's tensors by name, and a file's entries -> the expert's tensors by name."""
    codes = unpack(file["codes"], 4 * len(file["codes"])).long()
    codes[file["zeros"].long()] = 4
    values, ranks, expert = file["values"], file["ranks"].tolist(), {}

    def part(*shape):
        nonlocal codes, values
        mine, codes = codes[: math.prod(shape)], codes[math.prod(shape) :]
        four, values = values[:4], values[4:]
        return torch.cat([four, four.new_zeros(1)])[mine].view(shape)

    for name in sorted(base):
        shape = base[name].shape
        if len(shape) == 2:
            r = ranks.pop(0)
            s, values = values[:r], values[r:]
            x = part(shape[0], r) * s @ part(r, shape[1])
        else:
            x = part(*shape)
        expert[name] = base[name] + x
    return expert


def _rebuilt(base, file, *, zeros=True, added=True, strengths=True, order=sorted, turned=False):
    codes = unpack(file["codes"], 4 * len(file["codes"])).long()
    if zeros:
        codes[file["zeros"].long()] = 4
    values, ranks, expert, start = file["values"], file["ranks"].tolist(), {}, 0
    for name in order(base):
        shape, s = base[name].shape, None
        shapes = [shape]
        if len(shape) == 2:
            r = ranks.pop(0)
            s, values = values[:r], values[r:]
            shapes = [(r, shape[0]) if turned else (shape[0], r), (r, shape[1])]
        found = []
        for each in shapes:
            n = math.prod(each)
            found.append(torch.cat([values[:4], torch.zeros(1)])[codes[start : start + n]].view(each))
            values, start = values[4:], start + n
        if s is None:
            x = found[0]
        else:
            U = found[0].T if turned else found[0]
            x = (U * s if strengths else U) @ found[1]
        expert[name] = base[name] + x if added else x
    return expert


REBUILT_WRONG = {
    "My zeros come back as a weak group": lambda base, file: _rebuilt(base, file, zeros=False),
    "I get the remainder, not the expert": lambda base, file: _rebuilt(base, file, added=False),
    "My matrices have the wrong length": lambda base, file: _rebuilt(base, file, strengths=False),
    "My matrices are noise": lambda base, file: _rebuilt(base, file, turned=True),
    "I get the base back": lambda base, file: {name: x.clone() for name, x in base.items()},
    "My order is the base's own": lambda base, file: _rebuilt(base, file, order=list),
}


def _entries(models, keep_ratio):
    return compressed(*models, keep_ratio)


def it_comes_near_the_expert(candidate):
    base, expert = _models(4, {"weight": (12, 9), "bias": (30,)})
    found = candidate(base, compressed(base, expert, 1.0))
    if not isinstance(found, dict) or set(found) != set(expert):
        raise Wrong(f"expected a tensor for each of {sorted(expert)}, got {type(found).__name__}")
    for name, x in expert.items():
        off = (torch.as_tensor(found[name]) - x).norm() / (x - base[name]).norm()
        if not off < 0.75:
            raise Wrong(f"expected {name!r} near the expert's at keep ratio 1, got one that errs by {off:.0%}")


EXERCISES = (
    Exercise(
        name="compressed",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=15,
        reference=compressed,
        checks=(
            without_a_matrix,
            compresses(SMALL, 0.67),
            compresses(TWO, 0.5),
            compresses(TWO, 0.1),  # one component each
            it_takes_two_bits_for_a_code,
            its_types_are_those_of_the_table,
        ),
        start="Make three empty lists: codes, values and ranks. Go through the names in sorted order. What does a bias "
        "add to each list? Write that first, and let matrices wait.",
        hints=(
            ("I compress the expert itself", "The file holds a remainder: expert[name] - base[name]."),
            ("My tensors come in another order", "A file has no names in it. Both sides go by sorted(base)."),
            (
                "My matrices are not decomposed",
                "A tensor of two dimensions has two parts, U and V^T, and the singular values beside them.",
            ),
            ("My V^T comes before U", "First all of U, row by row, then all of V^T."),
            ("My singular values stand behind the scales", "A matrix adds s first, then U's four, then V^T's four."),
            ("I have five values for a tensor", "The value of the code 4 is always zero. Keep the first four."),
            (
                "I pack the code 4",
                "Two bits hold 0 to 3, so a 4 runs into the code after it. Pack codes % 4; "
                "zeros says where the 4s were.",
            ),
            (
                "My zeros are lost",
                "Two bits have no word for 4. Note where the long row of codes is 4 before you pack codes % 4.",
            ),
            ("My codes take a byte each", "Join the codes of all tensors to one long row, and pack that row."),
        ),
        skeleton=(
            "def compressed(base, expert, keep_ratio):\n"
            "    codes, values, ranks = [], [], []\n"
            "    for name in sorted(base):\n"
            "        parts = [expert[name] - base[name]]\n"
            "        if parts[0].dim() == 2:\n"
            "            ...  # parts is then [U, Vt]; s and its length are kept\n"
            "        for part in parts:\n"
            "            ...  # its codes, flattened, and its four values\n"
            "    codes = torch.cat(codes)\n"
            "    zeros = ...  # where codes is 4\n"
            '    return {"codes": pack(codes % 4), "values": torch.cat(values), "zeros": ..., "ranks": ...}'
        ),
        wrong=COMPRESSED_WRONG,
    ),
    Exercise(
        name="rebuilt",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=15,
        reference=rebuilt,
        checks=(
            case(rebuilt, BIASES[0], _entries(BIASES, 0.5)),
            case(rebuilt, SMALL[0], _entries(SMALL, 0.67)),
            case(rebuilt, TWO[0], _entries(TWO, 0.5)),
            it_comes_near_the_expert,
        ),
        start="Unpack all codes into one long row, and put the 4s back where zeros says. Then go through the names as "
        "compressed did, and each time cut what belongs to this tensor off the front of the two rows.",
        hints=(
            ("I get the base back", "Every tensor of the base gets its remainder added."),
            ("I get the remainder, not the expert", "Add it to the base's tensor of this name."),
            ("My order is the base's own", "The file was written in sorted order. Read it in the same."),
            (
                "My zeros come back as a weak group",
                "codes[zeros] = 4 on the long row, before it is cut; and the code 4 has the value zero.",
            ),
            ("My matrices have the wrong length", "The product is U diag(s) V^T. U diag(s) is U * s."),
            ("My matrices are noise", "U was written row by row, m rows of r. Give it that shape: (m, r)."),
        ),
        skeleton=(
            "def rebuilt(base, file):\n"
            '    codes = unpack(file["codes"], 4 * len(file["codes"])).long()\n'
            '    codes[file["zeros"].long()] = 4\n'
            '    values, ranks, expert = file["values"], file["ranks"].tolist(), {}\n'
            "\n"
            "    def part(*shape):  # the next elements of the long row, as a tensor of this shape\n"
            "        nonlocal codes, values\n"
            "        ...\n"
            "\n"
            "    for name in sorted(base):\n"
            "        shape = base[name].shape\n"
            "        if len(shape) == 2:\n"
            "            ...  # r, then s, then U (m, r) and V^T (r, n)\n"
            "        else:\n"
            "            x = part(*shape)\n"
            "        expert[name] = base[name] + x\n"
            "    return ..."
        ),
        wrong=REBUILT_WRONG,
    ),
)
