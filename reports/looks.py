"""One colour, dash and marker per implementation, the same in every chart and table of a page.

The colours are Okabe and Ito's, darkened for a white page and lightened for a dark one; the page holds both as CSS
variables ``--c0`` to ``--c7``. Where implementations outnumber colours, dash and marker tell them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LIGHT = ("#4a525c", "#0067a3", "#c74f00", "#007a58", "#a33f86", "#9a6700", "#1f86b4", "#6f6700")
DARK = ("#c5ccd5", "#63b3ed", "#ff8f56", "#36c99f", "#e592c9", "#f0b440", "#8ad6f7", "#ddd257")

# The markers as paths in a box of 26 by 12, for legends and tables.
MARKS = {
    "o": "M13 2a4 4 0 1 0 .01 0Z",
    "s": "M9.5 2.5h7v7h-7Z",
    "D": "M13 1.5 17.5 6 13 10.5 8.5 6Z",
    "^": "M13 1.5 17.5 10h-9Z",
    "v": "M13 10.5 17.5 2h-9Z",
    "X": "M9 3.5 10.5 2 13 4.5 15.5 2 17 3.5 14.5 6 17 8.5 15.5 10 13 7.5 10.5 10 9 8.5 11.5 6Z",
    "P": "M11.5 1.5h3v3h3v3h-3v3h-3v-3h-3v-3h3Z",
    "*": "M13 1l1.5 3.5 3.5.3-2.7 2.4.9 3.8-3.2-2-3.2 2 .9-3.8-2.7-2.4 3.5-.3Z",
}
SOLID, DASHED, DOTTED = "", "5 2.5", "1.5 2"


@dataclass(frozen=True)
class Look:
    """``colour`` is a place in the palette, ``dash`` an SVG dash array, ``marker`` a matplotlib marker."""

    colour: int
    dash: str = SOLID
    marker: str = "o"


# Implementations that share a chart stand apart; a variant with streaming stores has its
# twin's colour, dashed, and the published form dotted.
KNOWN: Mapping[str, Look] = {
    "peer/torch-eager": Look(0),
    "simd/two-pass": Look(1),
    "simd/auto": Look(2, marker="D"),
    "simd/three-pass-reload": Look(3, marker="s"),
    "simd/three-pass-recompute": Look(4, marker="^"),
    "numpy/three-pass": Look(5, marker="X"),
    "simd/two-pass-as-published": Look(6, marker="v"),
    "simd/online": Look(7, marker="P"),
    "simd/two-pass-stream": Look(1, DASHED),
    "simd/three-pass-reload-stream": Look(3, DASHED, "s"),
    "simd/three-pass-recompute-stream": Look(4, DASHED, "^"),
    "simd/online-stream": Look(7, DASHED, "P"),
    "simd/three-pass-reload-as-published": Look(3, DOTTED, "s"),
    "simd/three-pass-recompute-as-published": Look(4, DOTTED, "^"),
    "peer/torch-compile": Look(0, DASHED, "P"),
}
_TAKEN = {(look.colour, look.dash) for look in KNOWN.values()}
_EVERY = [
    Look(colour, dash, "Ds^vXP*o"[(colour + shift) % 8])
    for shift in range(8)
    for dash in (DOTTED, DASHED, SOLID)
    for colour in range(8)
]
# Untaken pairs of colour and dash first, then taken ones with another marker.
_SPARE = sorted(set(_EVERY) - set(KNOWN.values()), key=lambda look: ((look.colour, look.dash) in _TAKEN, _EVERY.index(look)))


def looks(implementations: Iterable[str]) -> dict[str, Look]:
    """A look for each, in order of first appearance for those that have none of their own."""
    spare = itertools.cycle(_SPARE)
    return {name: KNOWN.get(name) or next(spare) for name in dict.fromkeys(implementations)}
