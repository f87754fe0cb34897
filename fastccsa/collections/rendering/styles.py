"""The visual style of each collection: skin, camera, light and artefacts.

The seven styles differ in what distinguishes the real collections at a glance (colour cast, skin tone, size of the
lesion in the frame, vignette, hair, ruler, stickers, gel, sharpness), so a classifier trained only on HAM does worse on
the others. The lesions themselves are painted in the same way for all.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """One visual style. Values are drawn uniformly from ranges, and normally from pairs of mean and spread.

    Attributes:
        frame: Width and height relative to the ``width`` passed to the renderer.
        lesion: Range of the lesion's mean radius, as a fraction of the frame's height.
        melanin, blood: Mean and spread of the skin's optical densities (tan, redness).
        gain: White balance, a factor each for red, green and blue.
        gain_spread: Spread of the logarithm of the white balance.
        exposure, contrast, saturation: Ranges of factors; 1 changes nothing.
        vignette: Range of the fraction of light lost in the corners.
        glare: Strength of reflections on the skin: high for clinical photographs, 0 under a dermatoscope.
        blur: Range of the radius of the lens blur in thousandths of the frame's width.
        noise: Spread of the sensor noise.
        quality: Range of the JPEG quality.
        hair: Mean number of hairs in an image that has hair.
        hairy, aperture, ruler, bubbles, stickers, ink, cast: Probabilities per image of hair, a round black mask, a
            ruler along an edge, bubbles in the gel, a coloured sticker, marks of a surgical pen and a cyan colour cast.
    """

    frame: Range
    lesion: Range
    melanin: Range
    blood: Range
    gain: tuple[float, float, float]
    gain_spread: float
    exposure: Range
    contrast: Range
    saturation: Range
    vignette: Range
    blur: Range
    noise: float
    quality: Range
    glare: float = 0.0
    hair: float = 0.0
    hairy: float = 0.5
    aperture: float = 0.0
    ruler: float = 0.0
    bubbles: float = 0.0
    stickers: float = 0.0
    ink: float = 0.0
    cast: float = 0.0


# fmt: off
#: The styles of each domain by view: Derm7pt's cases have a clinical and a dermoscopic image.
STYLES: dict[str, tuple[Style, ...]] = {
    "HAM": (
        Style(
            frame=(1.0, 0.75), lesion=(0.16, 0.30), melanin=(0.12, 0.06), blood=(0.22, 0.12),
            gain=(1.00, 0.95, 1.06), gain_spread=0.07, exposure=(0.9, 1.12), contrast=(0.9, 1.15),
            saturation=(0.85, 1.2), vignette=(0.0, 0.35), blur=(0.0, 2.0), noise=0.008, quality=(85, 95),
            hair=12, aperture=0.08, ruler=0.12, bubbles=0.1,
        ),
    ),
    "DMF": (
        Style(
            frame=(0.9, 0.75), lesion=(0.26, 0.42), melanin=(0.16, 0.06), blood=(0.34, 0.10),
            gain=(1.06, 0.98, 0.86), gain_spread=0.04, exposure=(0.95, 1.2), contrast=(0.75, 0.95),
            saturation=(0.8, 1.05), vignette=(0.0, 0.1), blur=(2.0, 5.0), noise=0.006, quality=(90, 97),
            glare=0.2, hair=6,
        ),
    ),
    "D7P": (
        Style(
            frame=(1.15, 0.77), lesion=(0.10, 0.18), melanin=(0.28, 0.10), blood=(0.30, 0.12),
            gain=(1.08, 0.96, 0.78), gain_spread=0.06, exposure=(0.75, 1.0), contrast=(0.9, 1.2),
            saturation=(0.9, 1.25), vignette=(0.1, 0.5), blur=(3.0, 6.0), noise=0.02, quality=(60, 85),
            glare=0.3, hair=16, ruler=0.15,
        ),
        Style(
            frame=(1.15, 0.77), lesion=(0.22, 0.36), melanin=(0.20, 0.08), blood=(0.25, 0.12),
            gain=(1.12, 0.98, 0.80), gain_spread=0.06, exposure=(0.8, 1.05), contrast=(1.05, 1.3),
            saturation=(0.9, 1.2), vignette=(0.2, 0.6), blur=(1.0, 3.0), noise=0.02, quality=(60, 85),
            hair=12, bubbles=0.3,
        ),
    ),
    "MSK": (
        Style(
            frame=(1.25, 0.94), lesion=(0.14, 0.36), melanin=(0.22, 0.10), blood=(0.12, 0.08),
            gain=(0.90, 1.00, 1.12), gain_spread=0.09, exposure=(0.8, 1.15), contrast=(0.85, 1.2),
            saturation=(0.6, 0.95), vignette=(0.1, 0.5), blur=(0.0, 3.0), noise=0.012, quality=(75, 92),
            hair=28, aperture=0.1, ruler=0.4, bubbles=0.25, ink=0.2,
        ),
    ),
    "UDA": (
        Style(
            frame=(1.25, 0.94), lesion=(0.28, 0.44), melanin=(0.08, 0.05), blood=(0.16, 0.10),
            gain=(1.12, 1.00, 0.74), gain_spread=0.08, exposure=(0.95, 1.2), contrast=(1.15, 1.5),
            saturation=(0.8, 1.2), vignette=(0.3, 0.7), blur=(2.0, 5.0), noise=0.01, quality=(70, 90),
            hair=8, aperture=0.45, bubbles=0.35,
        ),
    ),
    "PH2": (
        Style(
            frame=(1.1, 0.83), lesion=(0.22, 0.36), melanin=(0.42, 0.10), blood=(0.10, 0.06),
            gain=(0.94, 1.06, 0.86), gain_spread=0.04, exposure=(0.85, 1.05), contrast=(1.0, 1.25),
            saturation=(0.7, 0.95), vignette=(0.4, 0.8), blur=(1.0, 2.5), noise=0.015, quality=(80, 95),
            hair=16, aperture=0.3, bubbles=0.15,
        ),
    ),
    "SON": (
        Style(
            frame=(1.25, 0.94), lesion=(0.10, 0.22), melanin=(0.36, 0.08), blood=(0.17, 0.06),
            gain=(1.04, 0.98, 0.80), gain_spread=0.03, exposure=(0.85, 1.0), contrast=(0.7, 0.9),
            saturation=(0.9, 1.15), vignette=(0.0, 0.2), blur=(0.5, 2.0), noise=0.01, quality=(80, 92),
            hair=10, bubbles=0.1, stickers=0.75,
        ),
    ),
}
# fmt: on
