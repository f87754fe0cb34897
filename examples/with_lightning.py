"""The same training with Lightning (pip install lightning).

fastccsa render --out rendered
python examples/with_lightning.py --manifest rendered/manifest.csv --size 64 --lr 1e-3

Prints the recall on the test images of each domain.
"""

from __future__ import annotations

import lightning
import torch
from own_images import OwnImages, arguments, pair_loss
from torch import Tensor

from fastccsa.evaluation import Scores
from fastccsa.models import build_model


class CCSA(lightning.LightningModule):
    """A network with its loss; the batches come from fastccsa's loader, already on the device."""

    def __init__(self, images: OwnImages, lr: float) -> None:
        super().__init__()
        self.images, self.lr = images, lr
        self.model = build_model("resnet18", len(images.classes), weights="none")  # returns (logits, features)
        self.loss_fn = images.loss(self.model.to(images.device))  # its weights are saved with the module

    def on_train_epoch_start(self) -> None:
        """Draw other pairs in each epoch."""
        self.images.sampler.set_epoch(self.current_epoch)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Compute the loss of a batch of pairs."""
        loss = pair_loss(self.model, self.loss_fn, batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Train all layers with AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=1e-3)


def main(argv: list[str] | None = None) -> Scores:
    """Train, and print the scores by domain."""
    args = arguments(__doc__, argv)
    images = OwnImages(args)
    lightning.seed_everything(0, verbose=False)
    module = CCSA(images, args.lr)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        accelerator=images.device.type,
        devices=1,
        use_distributed_sampler=False,  # the sampler takes rank and world_size itself
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, images.pairs)
    scores = images.scores(module.model.to(images.device).eval())
    print(scores)
    return scores


if __name__ == "__main__":
    main()
