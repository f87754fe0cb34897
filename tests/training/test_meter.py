from __future__ import annotations

import pytest
import torch

from fastccsa.training.meter import Meter

CPU = torch.device("cpu")


def test_means_are_over_samples_not_steps() -> None:
    meter = Meter(("loss", "alignment"), CPU)
    meter.update(torch.tensor([1.0, 10.0]), 30)
    meter.update(torch.tensor([5.0, 20.0]), 10)
    assert meter.summary().means == {"loss": pytest.approx(2.0), "alignment": pytest.approx(12.5)}


def test_counting_continues_from_a_state() -> None:
    whole, first, second = (Meter(("loss",), CPU) for _ in range(3))
    for meter, steps in ((whole, range(5)), (first, range(3))):
        for step in steps:
            meter.update(torch.tensor([0.1 * step]), 7 + step)
    second.load_state_dict(first.state_dict())
    for step in (3, 4):
        second.update(torch.tensor([0.1 * step]), 7 + step)
    assert second.summary() == whole.summary()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_step_with_a_bad_loss_is_named(bad) -> None:
    meter = Meter(("loss", "alignment"), CPU)
    for step in range(6):
        meter.update(torch.tensor([1.0, bad] if step == 4 else [bad if step in (3, 5) else 1.0, 2.0]), 4)
    found = meter.summary()
    assert str(found) == str(meter.look())  # NaN is not equal to itself
    assert found.bad_step == 3
    assert str(found.bad_terms["loss"]) == str(bad)
    assert found.bad_terms["alignment"] == 2.0
    assert meter.is_bad.item() == 1
    meter.restart(7)
    assert meter.is_bad.item() == 0
    meter.update(torch.tensor([bad, 1.0]), 1)
    assert meter.summary().bad_step == 7
