"""Test vectors of `int8-symmetric` and of the rule of norm 1 (sections 3 and 7).

Rows are put together by hand, or rounded by `struct` and `round`, which go to the even side
as IEEE 754 does; nothing is computed by the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import inf, nan
from typing import Final

from coin_protocol.testing.vector_documents import Documents, accepted, by_file, refused

TINY: Final = 2.0**-126
"""The smallest normal float32."""

GREATEST: Final = (2.0 - 2.0**-23) * 2.0**127
"""The greatest float32."""

_ERROR: Final = "QuantisationError"
_CODE: Final = "WINDOW_EMBEDDING"


def row(scale: float, *steps: int) -> bytes:
    """Return an encoded vector."""
    return struct.pack("<f", scale) + struct.pack(f"{len(steps)}b", *steps)


def quantise_vectors() -> Documents:
    """Return all vectors."""
    return by_file([*_encoded(), *_not_encoded(), *_decoded(), *_not_decoded(), *_windows()])


def _float32(number: float) -> float:
    (found,) = struct.unpack("<f", struct.pack("<f", number))
    return float(found)


def _encode(numbers: Sequence[float]) -> bytes:
    scale = _float32(max(abs(number) for number in numbers) / 127)
    return row(scale, *(max(-127, min(127, round(number / scale))) for number in numbers))


def _encoded() -> list[dict[str, object]]:
    halves = [0.5, 1.5, 2.5, 3.5, -0.5, -1.5, -2.5, 125.5, 126.5]
    by_hand: tuple[tuple[str, str, list[float], bytes], ...] = (
        (
            "one-step-a-unit",
            "With 127 as its greatest number a vector has scale 1.",
            [127.0, -127.0, 3.0, 0.0],
            bytes.fromhex("0000803f7f810300"),
        ),
        (
            "scale-of-two",
            "Each vector has its own scale.",
            [254.0, -2.0],
            bytes.fromhex("000000407fff"),
        ),
        (
            "halves-to-even",
            "Halves go to the even step, of either sign.",
            [127.0, *halves],
            row(1.0, 127, 0, 2, 2, 4, 0, -2, -2, 126, 126),
        ),
        ("one-number", "A vector of one number is its sign.", [-1.0], row(1 / 127, -127)),
        (
            "greatest-number-negative",
            "The greatest magnitude may be a negative number's.",
            [-127.0, 63.4],
            row(1.0, -127, 63),
        ),
        (
            "smallest-scale",
            "The smallest normal float32 is a scale.",
            [127 * TINY, 0.0],
            row(TINY, 127, 0),
        ),
    )
    found = [
        accepted(f"quantise-{name}", about, "quantise", {"numbers": numbers}, {"row": wanted})
        for name, about, numbers, wanted in by_hand
    ]
    unit = [0.5, -0.25, 0.125, 0.8, -0.1, 0.0, 1e-9, 0.0625]
    for name, numbers in (("unit-like", unit), ("thirds", [1 / 3, -2 / 3, 1 / 7, 0.1])):
        wanted = _encode(numbers)
        found.append(
            accepted(
                f"quantise-{name}",
                "The scale is rounded to float32 before numbers are divided by it.",
                "quantise",
                {"numbers": numbers},
                {"row": wanted},
                never={"the scale in big endian": {"row": wanted[3::-1] + wanted[4:]}},
            )
        )
    return found


def _not_encoded() -> list[dict[str, object]]:
    cases = (
        ("zero", "A vector of zeros has no direction.", [0.0, 0.0]),
        ("scale-subnormal", "A scale below the normal float32.", [63.5 * TINY, 0.0]),
        ("scale-past-float32", "A scale past the greatest float32.", [1e300, 0.0]),
        ("scale-lost", "A scale that float32 rounds to zero.", [1e-300, 0.0]),
    )
    return [
        refused(f"quantise-{name}", about, "quantise", {"numbers": numbers}, _ERROR)
        for name, about, numbers in cases
    ]


def _decoded() -> list[dict[str, object]]:
    cases: tuple[tuple[str, str, float, tuple[int, ...]], ...] = (
        ("one-number", "A vector of one number.", 0.5, (127,)),
        ("by-a-negative", "Magnitude 127 may be a negative number's.", 0.25, (-127, 1, 0)),
        ("smallest-scale", "The smallest normal float32.", TINY, (127, -1)),
        ("greatest-scale", "The greatest float32.", GREATEST, (127, 0, -3)),
        ("both-ends", "Both ends of the range.", 1.0, (127, -127, 126, -126)),
        ("scale-not-round", "A scale with all bits in use.", _float32(1 / 127), (127, 100, -7)),
    )
    return [
        accepted(
            f"dequantise-{name}",
            about,
            "dequantise",
            {"dimension": len(steps), "row": row(scale, *steps)},
            {"numbers": [_float32(scale) * step for step in steps]},
        )
        for name, about, scale, steps in cases
    ]


def _not_decoded() -> list[dict[str, object]]:
    good = row(1.0, 127, 3)
    cases = (
        ("empty", "No bytes.", b""),
        ("scale-alone", "A scale without numbers.", good[:4]),
        ("one-number-short", "A number is missing.", good[:-1]),
        ("one-number-more", "A number too many.", good + b"\0"),
        ("scale-not-a-number", "A scale must be a number.", row(nan, 127, 3)),
        ("scale-infinite", "A scale must be finite.", row(inf, 127, 3)),
        ("scale-minus-infinite", "A scale must be finite.", row(-inf, 127, 3)),
        ("scale-zero", "A scale must be positive.", row(0.0, 127, 3)),
        ("scale-minus-zero", "A scale must be positive.", row(-0.0, 127, 3)),
        ("scale-negative", "A scale must be positive.", row(-1.0, 127, 3)),
        ("scale-subnormal", "A scale must be normal.", row(TINY / 2, 127, 3)),
        ("scale-just-subnormal", "The largest subnormal.", bytes.fromhex("ffff7f007f03")),
        (
            "minus-128",
            "-128 is no step, so that every vector has its opposite.",
            row(1.0, 127, -128),
        ),
        ("minus-128-alone", "-128 does not stand for the magnitude 127.", row(1.0, -128, 3)),
        ("all-zero", "No number of magnitude 127.", row(1.0, 0, 0)),
        ("not-at-full-range", "One vector in two encodings would be two.", row(2.0, 126, 3)),
    )
    return [
        refused(f"dequantise-{name}", about, "dequantise", {"dimension": 2, "row": raw}, _ERROR)
        for name, about, raw in cases
    ]


# With s the scale and d numbers, all of them at 127: the norm is 127 s sqrt(d), and it may be
# off by s sqrt(d) / 2. So s lies in [1 / (127.5 sqrt(d)), 1 / (126.5 sqrt(d))]. With one number
# at 127 and the rest at 0 the norm is 127 s: s lies in [1 / (127 + sqrt(d) / 2),
# 1 / (127 - sqrt(d) / 2)].


def _windows() -> list[dict[str, object]]:
    full, spike = (127, -127) * 8, (127, *[0] * 15)
    exact = row(1 / 508, *full)
    small = (127, *[0] * 5)
    cases: tuple[tuple[str, str, int, int, list[bytes], bool], ...] = (
        ("one-window", "One token makes one window.", 16, 1, [exact], True),
        ("full-windows", "Eight tokens make two windows of four.", 16, 8, [exact] * 2, True),
        ("window-begun", "The fifth token begins a window.", 16, 5, [exact] * 2, True),
        ("long-within", "As long as rounding allows.", 16, 4, [row(1 / 506.1, *full)], True),
        ("short-within", "As short as rounding allows.", 16, 4, [row(1 / 509.9, *full)], True),
        ("spike-long-within", "One number holds it all.", 16, 4, [row(1 / 125.1, *spike)], True),
        ("spike-short-within", "One number holds it all.", 16, 4, [row(1 / 128.9, *spike)], True),
        ("projected", "Six numbers, by a projection.", 6, 4, [row(1 / 127, *small)], True),
        ("of-one-number", "A projection to one number.", 1, 4, [row(1 / 127, -127)], True),
        ("long", "Longer than rounding allows.", 16, 4, [row(1 / 505.9, *full)], False),
        ("short", "Shorter than rounding allows.", 16, 4, [row(1 / 510.1, *full)], False),
        ("spike-long", "Longer than rounding allows.", 16, 4, [row(1 / 124.9, *spike)], False),
        ("spike-short", "Shorter than rounding allows.", 16, 4, [row(1 / 129.1, *spike)], False),
        ("second-long", "The first is right, the second is not.", 16, 8,
         [exact, row(1 / 400, *full)], False),
        ("scale-one", "Steps taken for numbers.", 16, 4, [row(1.0, *full)], False),
        ("none", "Blocks have windows.", 16, 4, [], False),
        ("one-less", "A window is left out.", 16, 8, [exact], False),
        ("one-more", "A window too many.", 16, 4, [exact] * 2, False),
        ("numbers-missing", "A window of fewer numbers.", 16, 4, [exact[:-1]], False),
        ("of-the-unprojected-dimension", "The profile projects.", 6, 4, [exact], False),
        ("scale-not-a-number", "Neither shorter nor longer.", 16, 4, [row(nan, *full)], False),
        ("scale-negative", "Its norm alone would do.", 16, 4, [row(-1 / 508, *full)], False),
        ("not-at-full-range", "Its norm alone would do.", 16, 4,
         [row(1 / 504, *(126, -126) * 8)], False),
        ("minus-128", "Its norm alone would do.", 16, 4,
         [row(1 / 508, -128, *full[1:])], False),
    )  # fmt: skip
    found = []
    for name, about, dimension, tokens, windows, holds in cases:
        given: dict[str, object] = {
            "dimension": dimension,
            "window_tokens": 4,
            "token_count": tokens,
            "windows": windows,
        }
        named = f"windows-{name}"
        if holds:
            found.append(accepted(named, about, "check_windows", given))
        else:
            found.append(refused(named, about, "check_windows", given, _CODE))
    return found
