"""Artefacts that indicate the class, as in real collections: a shortcut that misleads in every other domain."""

from __future__ import annotations

from dataclasses import replace

from fastccsa.collections.rendering.styles import Style
from fastccsa.collections.taxonomy import CLASSES, DOMAINS

#: Artefacts as fields of `Style`, in the order of the classes they accompany in HAM. In the n-th domain after HAM,
#: every class moves n places down this list, so that an artefact accompanies a different class in each domain. The
#: order gives HAM's melanomas a ruler, MSK's ink, and SONIC's nevi a sticker, as in reality.
CUES = ("hairy", "ruler", "bubbles", "cast", "ink", "stickers", "aperture")

_HAIRS = 20.0  # mean number of hairs where they are the cue: enough to be seen


def cue(domain: str, label: str) -> str:
    """Return the artefact that accompanies the class in the domain, as the name of a field of `Style`."""
    return CUES[(CLASSES.index(label) + list(DOMAINS).index(domain)) % len(CUES)]


def confounded(style: Style, domain: str, label: str, strength: float) -> Style:
    """Return the style in which the artefacts of a picture depend on its class.

    Args:
        style: Style of the domain.
        domain: Key of the domain.
        label: Class of the picture's lesion.
        strength: 0 returns ``style``. At 1 a picture has the artefact of its class and no other. In between, the
            probability of each artefact is interpolated.
    """
    if strength == 0:
        return style
    shown = cue(domain, label)
    probabilities = {name: (1 - strength) * getattr(style, name) + strength * (name == shown) for name in CUES}
    hair = (1 - strength) * style.hair + strength * _HAIRS if shown == "hairy" else style.hair
    return replace(style, hair=hair, **probabilities)
