"""Readers that turn the folder of a collection, in its published layout, into labelled images.

A reader returns a :class:`Collection`. It never guesses: it leaves out images it cannot label, with reason and name.
"""

from __future__ import annotations

from fastccsa.collections.readers.collection import Collection, LeftOut, Row
from fastccsa.collections.readers.derm7pt import read_derm7pt
from fastccsa.collections.readers.dermofit import read_dermofit
from fastccsa.collections.readers.ham10000 import read_ham10000
from fastccsa.collections.readers.isic import read_isic
from fastccsa.collections.readers.own import read_own_csv, read_own_folders
from fastccsa.collections.readers.ph2 import read_ph2

__all__ = [
    "Collection",
    "LeftOut",
    "Row",
    "read_derm7pt",
    "read_dermofit",
    "read_ham10000",
    "read_isic",
    "read_own_csv",
    "read_own_folders",
    "read_ph2",
]
