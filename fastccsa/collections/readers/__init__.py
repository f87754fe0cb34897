"""Readers that turn the folder of a collection, in its published layout, into labelled images.

A reader returns a :class:`Collection`. It never guesses: it leaves out images it cannot label, with reason and name.
"""

from __future__ import annotations

from fastccsa.collections.readers.bcn20000 import read_bcn20000
from fastccsa.collections.readers.challenge import read_challenge
from fastccsa.collections.readers.collection import Collection, LeftOut, Row
from fastccsa.collections.readers.ddi import read_ddi
from fastccsa.collections.readers.derm7pt import read_derm7pt
from fastccsa.collections.readers.dermofit import read_dermofit
from fastccsa.collections.readers.fitzpatrick17k import read_fitzpatrick17k
from fastccsa.collections.readers.ham10000 import read_ham10000
from fastccsa.collections.readers.isic import read_isic
from fastccsa.collections.readers.milk10k import read_milk10k
from fastccsa.collections.readers.own import read_own_csv, read_own_folders
from fastccsa.collections.readers.pad_ufes_20 import read_pad_ufes_20
from fastccsa.collections.readers.ph2 import read_ph2

__all__ = [
    "Collection",
    "LeftOut",
    "Row",
    "read_bcn20000",
    "read_challenge",
    "read_ddi",
    "read_derm7pt",
    "read_dermofit",
    "read_fitzpatrick17k",
    "read_ham10000",
    "read_isic",
    "read_milk10k",
    "read_own_csv",
    "read_own_folders",
    "read_pad_ufes_20",
    "read_ph2",
]
