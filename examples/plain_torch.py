"""Your own training loop in plain torch.

fastccsa render --out rendered
python examples/plain_torch.py --manifest rendered/manifest.csv --size 64 --lr 1e-3

Prints the recall on the test images of each domain.
"""

from __future__ import annotations

import torch
import torchvision
from own_images import OwnImages, arguments, pair_loss
from torch import Tensor, nn

from fastccsa.evaluation import Scores


class WithFeatures(nn.Module):
    """A torchvision network that also returns the input of its last layer."""

    def __init__(self, network: torchvision.models.ResNet, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(network.fc.in_features, num_classes)
        network.fc = nn.Identity()
        self.body = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to (logits, features)."""
        features = self.body(images)
        return self.head(features), features


def main(argv: list[str] | None = None) -> Scores:
    """Train, and print the scores by domain."""
    args = arguments(__doc__, argv)
    images = OwnImages(args)
    torch.manual_seed(0)
    # For weights that are trained on ImageNet: resnet18(weights="IMAGENET1K_V1").
    model = WithFeatures(torchvision.models.resnet18(), len(images.classes)).to(images.device)
    loss_fn = images.loss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-3)
    for epoch in range(args.epochs):
        model.train()
        images.sampler.set_epoch(epoch)
        for batch in images.pairs:
            loss = pair_loss(model, loss_fn, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
    scores = images.scores(model.eval())
    print(scores)
    return scores


if __name__ == "__main__":
    main()
