"""One synthetic picture: skin with a lesion, artefacts on top, and the camera."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fastccsa.collections.rendering.artefacts import add_artefacts
from fastccsa.collections.rendering.canvas import EXTENT, Canvas, Field, planes, smooth_noise
from fastccsa.collections.rendering.confounding import confounded
from fastccsa.collections.rendering.lesions import paint_lesion
from fastccsa.collections.rendering.shifts import shifted
from fastccsa.collections.rendering.styles import STYLES, Style

# Absorption of red, green and blue light per unit of optical density (natural logarithm), roughly that of melanin and
# haemoglobin, and the colour of skin without either.
_MELANIN = planes((0.55, 1.00, 1.35))
_BLOOD = planes((0.12, 0.95, 0.75))
_BARE_SKIN = planes((0.97, 0.87, 0.82))

# Side of the lesion's canvas relative to the requested width; the canvas is about as fine as the picture.
_CANVAS_SHARE = 0.7
# The grey level that a change of contrast leaves unchanged.
_PIVOT = 0.55
# The white balance of a colour cast.
_CAST = (0.75, 1.06, 1.10)


@dataclass(frozen=True)
class Picture:
    """The identity of a picture. Together with the settings of `render`, it determines every pixel.

    Attributes:
        domain: Key of the collection.
        label: Class of the lesion.
        lesion: Number of the lesion within its domain and class.
        view: 0 for the first picture of the lesion, 1 for the second.
    """

    domain: str
    label: str
    lesion: int
    view: int


def render(
    picture: Picture, seed: int, width: int, *, shift: float = 1.0, confounding: float = 0.0
) -> tuple[Image.Image, int]:
    """Render the picture as an RGB image, and return it with the JPEG quality that its camera uses.

    Views of one lesion share the lesion and the skin; position, light, artefacts and camera settings differ. The
    arguments are those of `render_collections`.
    """
    kind = zlib.crc32(f"{picture.domain}/{picture.label}".encode())
    patient = np.random.default_rng([seed, kind, picture.lesion])
    photo = np.random.default_rng([seed, kind, picture.lesion, 1 + picture.view])
    styles = STYLES[picture.domain]
    style = shifted(styles[picture.view % len(styles)], shift)
    style = confounded(style, picture.domain, picture.label, confounding)
    tone = patient.standard_normal(2)
    canvas = paint_lesion(picture.label, patient, round(_CANVAS_SHARE * width))
    size = round(style.frame[0] * width), round(style.frame[1] * width)
    scene = _skin_with_lesion(canvas, tone, style, photo, size)
    scene = add_artefacts(scene, style, photo)
    return _photograph(scene, style, photo), round(photo.uniform(*style.quality))


def _skin_with_lesion(
    canvas: Canvas, tone: NDArray[np.float64], style: Style, rng: np.random.Generator, size: tuple[int, int]
) -> Field:
    """Return the colours, float32 [3, height, width], of skin with the lesion near the middle."""
    width, height = size
    tan = np.float32(max(0.0, style.melanin[0] + style.melanin[1] * tone[0]))
    redness = np.float32(max(0.0, style.blood[0] + style.blood[1] * tone[1]))
    pores = np.float32(0.025) * smooth_noise(rng, 60, height, width)
    melanin = tan * (1 + np.float32(0.12) * smooth_noise(rng, 7, height, width)) + pores
    blood = redness * (1 + np.float32(0.2) * smooth_noise(rng, 9, height, width)) + pores
    placement = _placement(canvas, style, rng, size)
    melanin += _warp(canvas.melanin, size, placement)
    blood += _warp(canvas.blood, size, placement)
    colours = _BARE_SKIN * np.exp(-(_MELANIN * melanin + _BLOOD * blood))
    colours *= 1 - _warp(canvas.cover, size, placement)
    for plane, cover in zip(colours, canvas.cover_colour, strict=True):
        plane += _warp(cover, size, placement)
    return colours


def _placement(canvas: Canvas, style: Style, rng: np.random.Generator, size: tuple[int, int]) -> tuple[float, ...]:
    """Return the affine map from pixels of the picture to pixels of the canvas: rotation, zoom and a small shift."""
    width, height = size
    radius = rng.uniform(*style.lesion) * height
    zoom = (canvas.side - 1) / (2 * EXTENT * radius)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    x, y = width * (0.5 + rng.normal(0, 0.03)), height * (0.5 + rng.normal(0, 0.03))
    middle = canvas.side / 2
    return cos, -sin, middle - cos * x + sin * y, sin, cos, middle - sin * x - cos * y


def _warp(layer: Field, size: tuple[int, int], placement: tuple[float, ...]) -> Field:
    """Return a layer of the canvas in the coordinates of the picture; 0 outside the canvas."""
    warped = Image.fromarray(layer).transform(size, Image.Transform.AFFINE, placement, Image.Resampling.BILINEAR)
    return np.asarray(warped, dtype=np.float32)


def _photograph(scene: Field, style: Style, rng: np.random.Generator) -> Image.Image:
    """Return the scene as the camera records it: light, colour, blur and noise."""
    _, height, width = scene.shape
    lit = scene * _light(style, rng, height, width)
    if style.glare:
        shine = smooth_noise(rng, 5, height, width) + smooth_noise(rng, 40, height, width) / 2
        lit += np.float32(style.glare) * np.clip(shine - np.float32(1.5), 0, 1)
    matrix, offset = _colour_response(style, rng)
    # Not a BLAS product: its rounding may depend on the number of threads, and the pixels must not.
    colours = np.einsum("ij,jhw->ihw", matrix, lit) + offset
    # The lens blurs first, then the sensor adds noise.
    sharp = Image.fromarray(_to_bytes(colours))
    blurred = sharp.filter(ImageFilter.GaussianBlur(rng.uniform(*style.blur) * width / 1000))
    grain = rng.standard_normal((height, width), dtype=np.float32) * np.float32(style.noise)
    return Image.fromarray(_to_bytes(np.asarray(blurred).transpose(2, 0, 1) / np.float32(255) + grain))


def _light(style: Style, rng: np.random.Generator, height: int, width: int) -> Field:
    """Return the illumination, float32 [height, width]: exposure, a tilted lamp, darker corners."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    tilt_x, tilt_y, loss, exposure = np.array(
        [*rng.normal(0, 0.06, 2), rng.uniform(*style.vignette), rng.uniform(*style.exposure)], np.float32
    )
    return exposure * (1 + tilt_x * x + tilt_y * y - loss / 4 * (x * x + y * y) ** 2)


def _colour_response(style: Style, rng: np.random.Generator) -> tuple[Field, Field]:
    """Return white balance, saturation and contrast as a matrix [3, 3] and an offset [3, 1, 1]."""
    gain = np.array(style.gain) * np.exp(rng.normal(0, style.gain_spread, 3))
    if style.cast and rng.random() < style.cast:
        gain *= _CAST
    saturation, contrast = rng.uniform(*style.saturation), rng.uniform(*style.contrast)
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
    return (mix * gain).astype(np.float32), planes(np.full(3, _PIVOT * (1 - contrast)))


def _to_bytes(colours: Field) -> NDArray[np.uint8]:
    """Convert colours [3, height, width] in [0, 1] to uint8 [height, width, 3]."""
    quantised = (np.clip(colours, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(quantised.transpose(1, 2, 0))
