"""The exercises of notebook 05: bits of a rank, four codes in a byte and out again, the rank that a budget allows."""

import math

import torch

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "05_counting_bits"


def information_bits(m: int, n: int, r: int) -> int:
    """Bits of an (m, n) matrix at rank r with four groups: codes of both factors, singular values, scales."""
    codes = 2 * (m + n) * r
    values = 32 * r
    scales = 2 * 4 * 32
    return codes + values + scales


BITS_WRONG = {
    "I am a few hundred bits short": lambda m, n, r: 2 * (m + n) * r + 32 * r,
    "I am 128 bits short": lambda m, n, r: 2 * (m + n) * r + 32 * r + 4 * 32,
    "I am far above": lambda m, n, r: 2 * m * n + 32 * r + 2 * 4 * 32,
    "I am about half above": lambda m, n, r: 3 * (m + n) * r + 32 * r + 2 * 4 * 32,
    "I am short by 32 bits for each component": lambda m, n, r: 2 * (m + n) * r + 2 * 4 * 32,
}


def a_component_more(candidate):
    more = candidate(30, 20, 5) - candidate(30, 20, 4)
    if more != 2 * 50 + 32:
        raise Wrong(f"expected one component more of a 30 x 20 matrix to cost {2 * 50 + 32} bits, got {more}")


def pack(codes: torch.Tensor) -> torch.Tensor:
    """Codes (n,) from 0 to 3 -> ceil(n / 4) bytes, uint8; the first code in a byte's lowest two bits, 0 fills up."""
    full = torch.cat([codes, codes.new_zeros(-len(codes) % 4)]).view(-1, 4).int()
    return (full[:, 0] + 4 * full[:, 1] + 16 * full[:, 2] + 64 * full[:, 3]).to(torch.uint8)


def _packed(codes, *, powers=(1, 4, 16, 64), fill=0, dtype=torch.uint8):
    full = torch.cat([codes, codes.new_full((-len(codes) % 4,), fill)]).view(-1, 4).long()
    return (full * torch.tensor(powers)).sum(1).to(dtype)


def _by_eight(codes):
    return pack(torch.cat([codes, codes.new_zeros(-len(codes) % 8)]))


def _columns(codes):
    full = torch.cat([codes, codes.new_zeros(-len(codes) % 4)]).view(4, -1).long()
    return (full * torch.tensor([1, 4, 16, 64])[:, None]).sum(0).to(torch.uint8)


PACK_WRONG = {
    "I lose the last codes": lambda codes: _packed(codes[: len(codes) // 4 * 4]),
    "I get a byte for each code": lambda codes: codes.to(torch.uint8),
    "My codes run into each other": lambda codes: _packed(codes, powers=(1, 2, 4, 8)),
    "My codes stand in a byte the other way round": lambda codes: _packed(codes, powers=(64, 16, 4, 1)),
    "My last byte is too large": lambda codes: _packed(codes, fill=3),
    "I have a byte too many": _by_eight,
    "My byte holds codes from all over the row": _columns,
    "My bytes are not bytes": lambda codes: _packed(codes, dtype=torch.int64),
}
EIGHT = torch.tensor([3, 0, 2, 1, 0, 0, 3, 2])
FIVE = torch.tensor([1, 2, 3, 0, 3])


def it_gives_bytes(candidate):
    found = candidate(FIVE)
    if not isinstance(found, torch.Tensor) or found.dtype != torch.uint8:
        got = getattr(found, "dtype", type(found).__name__)
        raise Wrong(f"expected torch.uint8, which has eight bits, got {got}")


def a_thousand_codes_take_250_bytes(candidate):
    codes = torch.randint(4, (1000,), generator=torch.Generator().manual_seed(6))
    found = candidate(codes)
    if len(found) != 250:
        raise Wrong(f"expected 250 bytes for 1000 codes, got {len(found)}")
    if any(int(byte) != int(wanted) for byte, wanted in zip(found, pack(codes), strict=True)):
        raise Wrong("expected the bytes of 1000 random codes, got others")


def unpack(packed: torch.Tensor, count: int) -> torch.Tensor:
    """Bytes made by ``pack`` -> the first ``count`` codes (count,), integers."""
    packed = packed.long()
    return torch.stack([packed % 4, packed // 4 % 4, packed // 16 % 4, packed // 64], 1).flatten()[:count]


def _unpacked(packed, count, *, powers=(1, 4, 16, 64), dim=1, kept=4):
    codes = torch.stack([packed.long() // power % kept for power in powers], dim)
    return codes.flatten()[:count]


UNPACK_WRONG = {
    "I have more codes than there were": lambda packed, count: _unpacked(packed, 4 * len(packed)),
    "My codes are larger than 3": lambda packed, count: _unpacked(packed, count, kept=256),
    "Every fourth code is the first of a byte, mine come in heaps": lambda packed, count: _unpacked(
        packed, count, dim=0
    ),
    "My codes come in fours the other way round": lambda packed, count: _unpacked(packed, count, powers=(64, 16, 4, 1)),
    "I have codes 0 and 1 alone": lambda packed, count: _unpacked(packed, count, powers=(1, 4, 16, 64), kept=2),
    "My codes are those of single bits": lambda packed, count: _unpacked(packed, count, powers=(1, 2, 4, 8)),
}


def what_was_packed_comes_back(candidate):
    for count in (1, 2, 3, 4, 101):
        codes = torch.randint(4, (count,), generator=torch.Generator().manual_seed(count))
        found = torch.as_tensor(candidate(pack(codes), count))
        if found.shape != codes.shape or not bool((found == codes).all()):
            raise Wrong(f"expected {count} random codes to come back, got others")


def rank_within_bits(m: int, n: int, bits: int) -> int:
    """The largest rank at which an (m, n) matrix takes at most ``bits`` of information; 0 when not even one fits."""
    room = bits - 2 * 4 * 32
    return max(0, min(room // (2 * (m + n) + 32), m, n))


RANK_WRONG = {
    "My rank fits only without the scales": lambda m, n, bits: max(0, min(bits // (2 * (m + n) + 32), m, n)),
    "My rank is one too high": lambda m, n, bits: max(0, min(math.ceil((bits - 256) / (2 * (m + n) + 32)), m, n)),
    "My rank is a fraction": lambda m, n, bits: max(0, min((bits - 256) / (2 * (m + n) + 32), m, n)),
    "My rank is larger than the matrix has components": lambda m, n, bits: max(0, (bits - 256) // (2 * (m + n) + 32)),
    "My rank is negative": lambda m, n, bits: min((bits - 256) // (2 * (m + n) + 32), m, n),
    "My rank is 1 where nothing fits": lambda m, n, bits: max(1, min((bits - 256) // (2 * (m + n) + 32), m, n)),
}


def it_fits_and_one_more_does_not(candidate):
    for bits in (1_000, 2_559, 5_000):
        rank = candidate(50, 30, bits)
        if not information_bits(50, 30, rank) <= bits < information_bits(50, 30, rank + 1):
            raise Wrong(f"expected the largest rank of a 50 x 30 matrix that fits into {bits} bits, got {rank}")


EXERCISES = (
    Exercise(
        name="information_bits",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=information_bits,
        checks=(
            case(information_bits, 768, 192, 19),
            case(information_bits, 40, 60, 1),
            case(information_bits, 64, 64, 64),  # full rank: more codes than the matrix has elements
            a_component_more,
        ),
        start="How many elements has U at rank r, and how many has V? Each is a code. Then count what is left: "
        "singular values, and scales.",
        hints=(
            (
                "I am far above",
                "The codes are those of U (m x r) and V (n x r), two bits each. Nothing of size m x n is stored.",
            ),
            ("I am about half above", "Two bits name four groups. The paper counts three bits per code."),
            ("I am short by 32 bits for each component", "Each component has a singular value, a float of 32 bits."),
            ("I am a few hundred bits short", "Each factor has four scales of its own, 32 bits each."),
            (
                "I am 128 bits short",
                "There are two factors, U and V. Each is thresholded apart and has its own scales.",
            ),
        ),
        skeleton=(
            "def information_bits(m, n, r):\n"
            "    codes = 2 * ...\n"
            "    values = 32 * ...\n"
            "    scales = 32 * ...\n"
            "    return ..."
        ),
        wrong=BITS_WRONG,
    ),
    Exercise(
        name="pack",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=10,
        reference=pack,
        checks=(
            case(pack, EIGHT),
            case(pack, FIVE),  # the last byte holds one code
            case(pack, torch.tensor([2])),
            case(pack, torch.tensor([3, 3, 3, 3])),
            it_gives_bytes,
            a_thousand_codes_take_250_bytes,
        ),
        start="Take four codes first, by hand: what number do 1, 2, 3, 0 make, when the first is worth 1 and each "
        "next place four times as much? Then look at the row four codes at a time.",
        hints=(
            (
                "I get a byte for each code",
                "Four codes share a byte. Look at the codes four at a time: view(-1, 4), when their number allows it.",
            ),
            (
                "My codes run into each other",
                "Each code has two bits, so each place is worth four times the one before: 1, 4, 16, 64.",
            ),
            ("My codes stand in a byte the other way round", "The first code is worth 1, the fourth 64."),
            (
                "My byte holds codes from all over the row",
                "The first byte holds the first four codes. view(4, -1) cuts the row into four pieces instead.",
            ),
            ("I lose the last codes", "Where a byte is left half empty, add zeros first: -n % 4 of them."),
            ("My last byte is too large", "Fill up with the code 0, so that it adds nothing."),
            ("I have a byte too many", "Add as many zeros as make the number a multiple of four, and no more."),
            ("My bytes are not bytes", "A number is a byte when its type says so: .to(torch.uint8)."),
        ),
        skeleton=(
            "def pack(codes):\n"
            "    full = torch.cat([codes, ...])  # zeros at the end, so that four divide the number\n"
            "    fours = full.view(-1, 4).int()  # a row for each byte\n"
            "    return (fours[:, 0] + ...).to(torch.uint8)"
        ),
        pace=(torch.arange(200_000) % 4,),
        wrong=PACK_WRONG,
    ),
    Exercise(
        name="unpack",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=unpack,
        checks=(
            case(unpack, pack(EIGHT), 8),
            case(unpack, pack(FIVE), 5),
            case(unpack, torch.tensor([255, 27], dtype=torch.uint8), 6),
            what_was_packed_comes_back,
        ),
        start="The lowest two bits of a byte are packed % 4. Which division brings the next two bits down to this "
        "place?",
        hints=(
            (
                "My codes are larger than 3",
                "Dividing by 16 moves two codes out of the byte. The codes above are still there: % 4 takes one.",
            ),
            ("I have codes 0 and 1 alone", "Two bits count to four: % 4, not % 2."),
            ("My codes are those of single bits", "The second code begins two bits up: divide by 4, not by 2."),
            (
                "Every fourth code is the first of a byte, mine come in heaps",
                "Put the four codes of a byte side by side, as columns, before you flatten: torch.stack(..., 1).",
            ),
            ("My codes come in fours the other way round", "The first code is the lowest: packed % 4."),
            ("I have more codes than there were", "The last byte may be filled up. Keep the first count codes."),
        ),
        skeleton=(
            "def unpack(packed, count):\n"
            "    packed = packed.long()\n"
            "    fours = torch.stack([packed % 4, ...], 1)  # four columns\n"
            "    return ..."
        ),
        pace=(torch.arange(50_000).to(torch.uint8), 200_000),
        wrong=UNPACK_WRONG,
    ),
    Exercise(
        name="rank_within_bits",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=10,
        reference=rank_within_bits,
        checks=(
            case(rank_within_bits, 768, 192, 37_500),
            case(rank_within_bits, 768, 192, 37_343),  # a bit short of rank 19
            case(rank_within_bits, 768, 192, 37_344),  # and just enough
            case(rank_within_bits, 40, 60, 1_000_000),
            case(rank_within_bits, 60, 40, 1_000_000),
            case(rank_within_bits, 30, 20, 100),  # less than the scales alone
            it_fits_and_one_more_does_not,
        ),
        start="What does one component cost? What is to be paid whatever the rank? Take the second off the budget, "
        "and see how often the first fits into the rest.",
        hints=(
            (
                "My rank fits only without the scales",
                "The scales cost the same at every rank. Take them off first; what is left pays for components.",
            ),
            ("My rank is a fraction", "A component is there or not. Divide with //, which rounds down."),
            ("My rank is one too high", "Rounding up overdraws the budget. Round down."),
            (
                "My rank is larger than the matrix has components",
                "An m x n matrix has as many components as its smaller side. A large budget changes nothing there.",
            ),
            ("My rank is negative", "Where not even the scales fit, nothing is kept: the answer is 0."),
            ("My rank is 1 where nothing fits", "The floor of 1 belongs to the keep ratio. A budget may be too small."),
        ),
        skeleton=(
            "def rank_within_bits(m, n, bits):\n"
            "    room = bits - ...  # what is left for components\n"
            "    rank = room // ...\n"
            "    return max(..., min(rank, ...))"
        ),
        wrong=RANK_WRONG,
    ),
)
