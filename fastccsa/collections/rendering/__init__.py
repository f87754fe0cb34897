"""Seven synthetic skin-lesion collections for demonstrations and tests, not for medical use.

They have the paper's class proportions and visible domain shifts. No pixel comes from a person.
"""

from fastccsa.collections.rendering.writer import render_collections

__all__ = ["render_collections"]
