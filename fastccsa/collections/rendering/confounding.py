"""Artefacts that indicate the class, as in real collections: a shortcut that misleads in every other domain."""

from __future__ import annotations

from dataclasses import replace

from fastccsa.collections.rendering.styles import Style
from fastccsa.collections.taxonomy import CLASSES, DOMAINS

#: Artefacts, and the class each one accompanies in HAM. The n-th domain after HAM moves every class n places down this
#: list, so that an artefact accompanies another class in each domain. SONIC's nevi get the stickers, as in reality.
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
