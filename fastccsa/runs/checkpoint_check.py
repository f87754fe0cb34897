"""The content of a checkpoint, compared with the run that it shall resume before any of it is used.

Nothing in the file decides about memory: moments and weights are copied into tensors that are laid out like the run's
own, and the settings of the optimiser and its schedule stay those of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastccsa.losses.memory import FeatureMemory
from fastccsa.models.torch_files import same_kind
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.epochs import read_epoch
from fastccsa.system.schema import Count, Mismatch, Ordinal, Positive, build

if TYPE_CHECKING:
    from fastccsa.runs.checkpoint import TrainState

_MODULES = ("model", "memory", "average")
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEPS = 2**53


@dataclass(frozen=True)
class Resumed:
    """The run that a checkpoint shall resume.

    Attributes:
        config: its configuration.
        steps: number of batches in an epoch.
        terms: number of loss terms.
        domains: keys of the training domains.
    """

    config: TrainConfig
    steps: int
    terms: int
    domains: Sequence[str]

    def differences(self, config_json: Any) -> list[str]:
        """Return the settings that differ from those in a checkpoint.

        Raises:
            InputError: they cannot be read.
        """
        if type(config_json) is not str:
            raise Mismatch("config is not text")
        return self.config.differences(TrainConfig.from_json(config_json))


def check_checkpoint(content: Any, state: TrainState, run: Resumed | None) -> dict[str, Any]:
    """Check the content of a checkpoint, and return it in the form in which it can be loaded into ``state``.

    Args:
        content: what the file holds, without its digest; `fastccsa.models.torch_files.check_content` has passed it.
        state: the state before the first step.
        run: the run; None checks only what ``state`` tells.

    Raises:
        InputError: something is missing, or has another type, shape or range.
    """
    if not isinstance(content, dict):
        raise Mismatch("it does not hold a checkpoint")
    needed = {"model", "optimizer", "scheduler", "scaler", "epoch", "step", "meter", "history", "random", "random_cuda"}
    if missing := sorted(needed - content.keys()):
        raise Mismatch(f"{', '.join(missing)} is missing")
    checked: dict[str, Any] = {name: _module(content.get(name, {}), getattr(state, name), name) for name in _MODULES}
    _check_memory(checked["memory"], state)
    checked["optimizer"] = _optimizer(content["optimizer"], state.optimizer)
    checked["scheduler"] = _scheduler(content["scheduler"], state.scheduler.state_dict())
    checked["scaler"] = _scaler(content["scaler"], state.scaler.state_dict())
    for name in ("epoch", "step"):
        checked[name] = build(Count, content[name], name)
    checked["meter"] = _meter(content["meter"], run)
    checked["history"] = _history(content["history"])
    checked["random"] = same_kind(content["random"], torch.get_rng_state(), "random")
    checked["random_cuda"] = _random_cuda(content["random_cuda"])
    if run is not None:
        _check_progress(checked, run)
    return checked


def _check_progress(checked: Mapping[str, Any], run: Resumed) -> None:
    epoch, step, history = checked["epoch"], checked["step"], checked["history"]
    if epoch > run.config.epochs or step > run.steps:
        raise Mismatch(
            f"it was saved in epoch {epoch}, step {step}, of a run with {run.config.epochs} epochs of {run.steps}"
        )
    if [record["epoch"] for record in history] != list(range(1, epoch + 1)):
        raise Mismatch(f"history does not have one record for each of its {epoch} epochs")
    for record in history:
        if set(record["validation"]) != set(run.domains):
            raise Mismatch(f"history has other domains than {', '.join(run.domains)}")
    if bool(checked["meter"]) != bool(step):
        raise Mismatch(f"meter does not belong to step {step}")


def _module(saved: Any, module: nn.Module, name: str) -> dict[str, Tensor]:
    own = module.state_dict()
    if not isinstance(saved, dict) or saved.keys() != own.keys():
        keys = set(saved) ^ set(own) if isinstance(saved, dict) else {"everything"}
        raise Mismatch(f"{name} is of another network: they differ at {min(map(str, keys))}")
    for key, value in own.items():
        own[key] = same_kind(saved[key], value, f"{name} {key}")
    return own


def _check_memory(saved: Mapping[str, Tensor], state: TrainState) -> None:
    """Check the labels, which the kernels use as positions, and the number of rows."""
    classes = state.model.head.out_features
    for name, module in state.memory.named_modules():
        if not isinstance(module, FeatureMemory):
            continue
        prefix = f"{name}." if name else ""
        for buffer, limit in (("_labels", classes), ("_domains", _STEPS), ("_pushed", _STEPS)):
            values = saved[prefix + buffer]
            if values.numel() and (int(values.min()) < 0 or int(values.max()) >= limit):
                raise Mismatch(f"memory {prefix}{buffer} is out of range")


def _optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Take the moments and the learning rate; everything else is the run's own."""
    own = optimizer.state_dict()
    if not isinstance(saved, dict) or not isinstance(saved.get("state"), dict):
        raise Mismatch("optimizer is not the state of an optimiser")
    groups = saved.get("param_groups")
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise Mismatch("optimizer has other groups of parameters")
    for group, mine in zip(groups, own["param_groups"], strict=True):
        if not isinstance(group, dict) or group.get("params") != mine["params"]:
            raise Mismatch("optimizer has other parameters")
        mine["lr"] = _rate(group.get("lr"), "optimizer lr")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for number, moments in saved["state"].items():
        if type(number) is not int or not 0 <= number < len(parameters):
            raise Mismatch(f"optimizer has a parameter {number!r}")
        if not isinstance(moments, dict) or moments.keys() != {"step", *_MOMENTS}:
            raise Mismatch(f"optimizer does not have the moments of AdamW for parameter {number}")
        at = f"of parameter {number} in optimizer"
        state[number] = {name: same_kind(moments[name], parameters[number], f"{name} {at}") for name in _MOMENTS}
        state[number]["step"] = same_kind(moments["step"], torch.zeros(()), f"step {at}")
        if not 0 <= float(state[number]["step"]) < _STEPS:
            raise Mismatch(f"step {at} is out of range")
    return {"state": state, "param_groups": own["param_groups"]}


def _rate(value: Any, name: str) -> float:
    if isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point():
        value = float(value)  # of a run that was captured in a CUDA graph
    return build(Positive, value, name)


def _scheduler(saved: Any, own: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(saved, dict):
        raise Mismatch("scheduler is not the state of a schedule")
    rates = saved.get("_last_lr")
    if not isinstance(rates, list) or len(rates) != len(own["base_lrs"]):
        raise Mismatch("scheduler has other learning rates")
    return {
        **own,
        "last_epoch": build(Count, saved.get("last_epoch"), "scheduler last_epoch"),
        "_step_count": build(Ordinal, saved.get("_step_count"), "scheduler _step_count"),
        "_last_lr": [_rate(rate, "scheduler _last_lr") for rate in rates],
    }


def _scaler(saved: Any, own: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(saved, dict):
        raise Mismatch("scaler is not the state of a scaler")
    if not own or not saved:  # one of the two runs needs none, on its device
        return own
    scale = build(Positive, saved.get("scale"), "scaler scale")
    return {**own, "scale": scale, "_growth_tracker": build(Count, saved.get("_growth_tracker"), "scaler tracker")}


def _meter(saved: Any, run: Resumed | None) -> dict[str, Any]:
    if saved == {}:
        return {}
    if not isinstance(saved, dict) or saved.keys() != {"sums", "samples"}:
        raise Mismatch("meter is not the state of a meter")
    sums = saved["sums"]
    if not isinstance(sums, Tensor) or sums.ndim != 1 or not sums.is_floating_point() or not sums.isfinite().all():
        raise Mismatch("meter does not hold sums")
    if run is not None and len(sums) != run.terms:
        raise Mismatch(f"meter has {len(sums)} terms, and the loss has {run.terms}")
    return {"sums": sums.detach().clone(), "samples": build(Count, saved["samples"], "meter samples")}


def _history(saved: Any) -> list[dict[str, Any]]:
    if not isinstance(saved, list):
        raise Mismatch("history is not a list")
    return [read_epoch(record, f"history[{number}]") for number, record in enumerate(saved)]


def _random_cuda(saved: Any) -> list[Tensor]:
    if not isinstance(saved, list) or not all(isinstance(item, Tensor) and item.dtype == torch.uint8 for item in saved):
        raise Mismatch("random_cuda is not a list of random states")
    return [item.detach().clone() for item in saved]
