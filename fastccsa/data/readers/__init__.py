"""Readers of the collections in the layouts they are published in: folder in, labelled images out.

A reader gives a :class:`Collection`. What it cannot place it drops and counts by reason; it never guesses.
"""

from __future__ import annotations

from fastccsa.data.readers.collection import Collection, Row
from fastccsa.data.readers.ham10000 import read_ham10000
from fastccsa.data.readers.isic import read_isic

__all__ = ["Collection", "Row", "read_ham10000", "read_isic"]
