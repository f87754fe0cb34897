"""The same training with a network and the Trainer of Hugging Face (pip install transformers accelerate).

fastccsa render --out rendered
python examples/with_transformers.py --manifest rendered/manifest.csv --size 64 --lr 1e-3

Prints the recall on the test images of each domain.
"""

from __future__ import annotations

import tempfile
from typing import Any

import transformers
from own_images import OwnImages, arguments, pair_loss
from torch import Tensor, nn

import fastccsa
from fastccsa.evaluation import Scores

# A small ResNet. AutoModelForImageClassification.from_pretrained(NAME, num_labels=...) loads a trained network instead.
CONFIG = {"embedding_size": 32, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1], "layer_type": "basic"}


class WithFeatures(nn.Module):
    """An image classifier of transformers that also returns the input of its last linear layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._kept: list[Tensor] = []
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_pre_hook(lambda _, inputs: self._kept.append(inputs[0]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to (logits, features)."""
        logits = self.network(pixel_values=images).logits
        return logits, self._kept.pop()


class PairTrainer(transformers.Trainer):
    """A Trainer whose batches come from fastccsa's loader, with the loss over pairs."""

    def __init__(self, *args: Any, images: OwnImages, loss_fn: fastccsa.WeightedCCSALoss, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.images, self.loss_fn = images, loss_fn

    def get_train_dataloader(self) -> Any:
        """Return batches of pairs; the callback draws other ones in each epoch."""
        return self.images.pairs

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Compute the loss of a batch of pairs."""
        return pair_loss(model, self.loss_fn, inputs)


class NextEpoch(transformers.TrainerCallback):
    """Tells the sampler which epoch begins."""

    def __init__(self, sampler: fastccsa.PairSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: transformers.TrainerState, control: Any, **_: Any) -> None:
        """Set the sampler's epoch."""
        self.sampler.set_epoch(round(state.epoch or 0))


def main(argv: list[str] | None = None) -> Scores:
    """Train, and print the scores by domain."""
    args = arguments(__doc__, argv)
    images = OwnImages(args)
    transformers.set_seed(0)
    config = transformers.ResNetConfig(**CONFIG, num_labels=len(images.classes))
    model = WithFeatures(transformers.AutoModelForImageClassification.from_config(config)).to(images.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PairTrainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=args.epochs,
                learning_rate=args.lr,
                weight_decay=1e-3,
                save_strategy="no",
                report_to="none",
            ),
            callbacks=[NextEpoch(images.sampler)],
            images=images,
            loss_fn=images.loss(model),
        )
        trainer.train()
    scores = images.scores(model.eval())
    print(scores)
    return scores


if __name__ == "__main__":
    main()
