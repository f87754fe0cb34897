"""The fine-tuning before a stage: for each batch, one step on the stage's auxiliary loss and one on the run's loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from tqdm import tqdm

from fastccsa.models import Classifier
from fastccsa.pruning.resnet import Stage, run_blocks, run_stem
from fastccsa.pruning.subset import classification
from fastccsa.runs.config import TrainConfig
from fastccsa.system.devices import amp_dtype, autocast
from fastccsa.system.errors import InputError
from fastccsa.training import Forward, Objective, make_forward


def fine_tune_stage(
    model: Classifier,
    head: nn.Module | None,
    stage: Stage,
    objective: Objective,
    config: TrainConfig,
    epochs: range,
    progress: bool,
) -> None:
    """Fine-tune the whole network and ``head``, with the run's objective.

    Args:
        model: the network, changed in place; it is in evaluation mode afterwards.
        head: the stage's auxiliary head; None for the last stage, which uses only the run's loss.
        stage: the stage, which says where the head is.
        objective: the run's objective.
        config: learning rate, weight decay and autocast.
        epochs: numbers of the epochs, which determine the batches.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: the loss is NaN or infinite.
    """
    device = model.head.weight.device
    dtype = amp_dtype(config.amp, device)
    if dtype == torch.float16:
        dtype = None  # float16 would need loss scaling, which takes longer to adapt than a stage
    parameters = [*model.parameters(), *(head.parameters() if head is not None else ())]
    optimizer = AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    final = make_forward(model, device, dtype)
    networks = [model] if head is None else [model, head]
    for network in networks:
        network.train()

    def step(loss: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    total = len(epochs) * len(objective.loader)
    with tqdm(desc="fine-tuning", total=total, unit="step", leave=False, disable=None if progress else True) as bar:
        for epoch in epochs:
            for batch in objective.loader.epoch(epoch):
                if head is not None:
                    auxiliary = classification(lambda b: objective(_auxiliary_forward(model, head, stage, dtype), b))
                    step(auxiliary(batch))
                loss = step(objective(final, batch)[0])
                if not math.isfinite(loss):
                    raise InputError(
                        f"the loss is not finite in epoch {epoch + 1} of fine-tuning: prune with a lower lr"
                    )
                bar.update()
                bar.set_postfix_str(f"loss {loss:.4f}")
    for network in networks:
        network.eval()


def _auxiliary_forward(model: Classifier, head: nn.Module, stage: Stage, dtype: torch.dtype | None) -> Forward:
    """Make the function from images to the auxiliary head's (logits, features)."""

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(images.device, dtype):
            outputs = run_stem(model, images.contiguous(memory_format=torch.channels_last))
            logits, features = head(run_blocks(model, outputs, 0, stage.end + 1))
        return logits.to(features.dtype), features

    return forward
