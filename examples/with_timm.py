"""The same training with a network, optimiser, schedule and weight average of timm (pip install timm).

fastccsa render --out rendered
python examples/with_timm.py --manifest rendered/manifest.csv --size 64 --lr 1e-3

Prints the recall on the test images of each domain.
"""

from __future__ import annotations

import timm
import timm.optim
import timm.scheduler
import timm.utils
import torch
from own_images import OwnImages, arguments, pair_loss
from torch import Tensor, nn

from fastccsa.evaluation import Scores

NETWORK = "resnet10t"  # or any other of timm.list_models(); pretrained=True loads its weights


class WithFeatures(nn.Module):
    """A timm network that also returns the input of its last layer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to (logits, features)."""
        features = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        return self.network.get_classifier()(features), features


def main(argv: list[str] | None = None) -> Scores:
    """Train, and print the scores by domain."""
    args = arguments(__doc__, argv)
    images = OwnImages(args)
    torch.manual_seed(0)
    model = WithFeatures(timm.create_model(NETWORK, num_classes=len(images.classes))).to(images.device)
    loss_fn = images.loss(model)
    optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=args.lr, weight_decay=1e-3)
    schedule = timm.scheduler.CosineLRScheduler(optimizer, t_initial=args.epochs)
    average = timm.utils.ModelEmaV3(model, decay=0.99)
    for epoch in range(args.epochs):
        model.train()
        images.sampler.set_epoch(epoch)
        for batch in images.pairs:
            loss = pair_loss(model, loss_fn, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(model)
        schedule.step(epoch + 1)
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
    scores = images.scores(average.module.eval())
    print(scores)
    return scores


if __name__ == "__main__":
    main()
