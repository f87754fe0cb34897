"""What the four training examples share: the images of a manifest as pairs, and the scores on its test images.

The examples differ in who runs the loop: `plain_torch.py`, `with_lightning.py`, `with_timm.py`, `with_transformers.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import fastccsa
from fastccsa.data import ImageLoader, PairLoader, Transforms
from fastccsa.evaluation import Scores, score

Features = Callable[[Tensor], tuple[Tensor, Tensor]]


def arguments(description: str | None, argv: list[str] | None) -> argparse.Namespace:
    """Read the command line that the examples share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True, help="of `fastccsa prepare` or `fastccsa render`")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32, help="pairs per step")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--lr", type=float, default=1e-4)
    return parser.parse_args(argv)


class OwnImages:
    """The images of a manifest: pairs of training images across domains, and test images."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.transforms = Transforms(size=args.size)
        self.manifest = fastccsa.Manifest.read(args.manifest)
        training = self.manifest.select("train")
        self.classes = self.manifest.classes
        self.sampler = fastccsa.PairSampler(
            training.labels,
            training.domain_indices,
            num_classes=len(self.classes),
            batch_size=args.batch_size,
            drop_last=True,
        )
        # Batches of images1, images2, target1, target2, ...: decoded, augmented and on the device.
        self.pairs = PairLoader(training, self.sampler, device=self.device, transforms=self.transforms)

    @torch.no_grad()
    def loss(self, model: Features) -> fastccsa.WeightedCCSALoss:
        """Make the loss; its margin comes from the features of a network that is not trained yet."""
        batch = next(iter(self.pairs))
        features1, features2 = (model(batch[name])[1] for name in ("images1", "images2"))
        distance = fastccsa.median_distance(features1, features2)
        return fastccsa.balanced_loss(self.sampler.probabilities(), distance).to(self.device)

    @torch.no_grad()
    def scores(self, model: Features) -> Scores:
        """Score a network on the test images by domain; call its `eval()` first."""
        test = self.manifest.select("test")
        order = fastccsa.ImageSampler(test.labels, num_classes=len(self.classes), batch_size=64, shuffle=False)
        columns: list[tuple[Tensor, ...]] = []
        with ImageLoader(test, order, augment=False, device=self.device, transforms=self.transforms) as loader:
            for batch in loader:
                columns.append((batch["target"], model(batch["images"])[0].argmax(1), batch["domain"]))
        targets, predictions, domains = (torch.cat(column).cpu().numpy() for column in zip(*columns, strict=True))
        return score(targets, predictions, domains, self.classes, test.domains)


def pair_loss(model: Features, loss_fn: fastccsa.WeightedCCSALoss, batch: dict[str, Tensor]) -> Tensor:
    """Pass both images of each pair through the network as one batch, so that BatchNorm sees all domains."""
    logits, features = model(torch.cat([batch["images1"], batch["images2"]]))
    return loss_fn(*logits.chunk(2), *features.chunk(2), batch["target1"], batch["target2"])
