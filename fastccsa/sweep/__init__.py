"""A search over settings of the training with a fixed budget, judged by validation images only."""

from __future__ import annotations

from fastccsa.system.extras import install_advice

with install_advice():
    from fastccsa.sweep.config import SweepConfig
    from fastccsa.sweep.space import Choice, Span, parse_setting
    from fastccsa.sweep.study import Trial, sweep
    from fastccsa.sweep.table import to_text, write_table

__all__ = ["Choice", "Span", "SweepConfig", "Trial", "parse_setting", "sweep", "to_text", "write_table"]
