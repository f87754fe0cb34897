"""Named algorithms, with which CCSA is compared: ways to train on single images of all training domains.

The formulas are those of the papers named at each class, and the default strengths those of DomainBed (Gulrajani and
Lopez-Paz, In search of lost domain generalization, ICLR 2021) where it has the algorithm; that of IRM is 1 throughout,
where DomainBed goes from 1 to 100 after 500 steps. Losses that compare domains
see the domains of the images that one process has in a step. All of them weight the cross-entropy by class as the
baseline does, unless they say otherwise, and can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from fastccsa.models import Classifier
from fastccsa.ops.profiling import stage
from fastccsa.runs.images import RunImages
from fastccsa.sampling import BalancedSampler
from fastccsa.training.objectives import CCSA, Baseline, Forward


class Balanced(Baseline):
    """ERM whose sampler draws every class, and every domain that has it, equally often; unweighted cross-entropy."""

    def make_sampler(self, images: RunImages, **options: Any) -> BalancedSampler:
        """Make the sampler of the training images."""
        training = images.training
        return BalancedSampler(training.labels, training.domain_indices, num_classes=len(training.classes), **options)


class Focal(Baseline):
    """Focal loss: cross-entropy times (1 - p)^strength (Lin et al., Focal loss for dense object detection, ICCV 2017).

    The strength is the focusing parameter, gamma in the paper.
    """

    def loss(self, logits: Tensor, features: Tensor, target: Tensor, domain: Tensor) -> Tensor:
        """Compute the loss, [1]."""
        log_p = log_softmax(logits.float(), dim=1).gather(1, target[:, None]).squeeze(1)
        losses = -((1 - log_p.exp()) ** self.strength) * log_p
        if self.class_weight is not None:
            losses = losses * self.class_weight[target]
        return losses.mean().unsqueeze(0)


class LogitAdjusted(Baseline):
    """Logit adjustment: cross-entropy of logits + strength log P(y) (Menon et al., ICLR 2021); without class weights.

    Long-tail learning via logit adjustment, equation 10; the strength is tau. Predictions use the plain logits.
    """

    def prepare(self, probabilities: NDArray[np.float64], device: torch.device) -> None:
        """Make the adjustment; a class without images gets none, because it is never a target."""
        logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
        self.adjustment = torch.as_tensor(self.strength * logs, dtype=torch.float32, device=device)

    def loss(self, logits: Tensor, features: Tensor, target: Tensor, domain: Tensor) -> Tensor:
        """Compute the loss, [1]."""
        return cross_entropy(logits.float() + self.adjustment, target).unsqueeze(0)


class Mixup(Baseline):
    """Mixup: images and losses of a batch mixed with those of its permutation (Zhang et al., ICLR 2018).

    mixup: Beyond empirical risk minimization; the share is drawn from Beta(strength, strength) once per step.
    """

    combines_images = True

    def __call__(self, forward: Forward, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss, [1]."""
        images, target = batch["images"], batch["target"]
        with stage("loss"):
            # torch's own generators, whose state is part of a checkpoint.
            gamma = torch._standard_gamma(torch.full((2,), self.strength, device=images.device))
            share = gamma[0] / gamma.sum().clamp_min(torch.finfo(torch.float32).tiny)
            other = torch.rand(len(images), device=images.device).argsort()
            mixed = torch.lerp(images[other], images, share.to(images.dtype))
        logits, _ = forward(mixed)
        with stage("loss"):
            own, others = self.cross_entropy(logits, target), self.cross_entropy(logits, target[other])
            return torch.lerp(others, own, share).unsqueeze(0)


class Penalised(Baseline):
    """Cross-entropy + strength * penalty, where the penalty compares the domains of a batch."""

    terms = ("loss", "classification", "penalty")

    def penalty(self, logits: Tensor, features: Tensor, target: Tensor, members: Tensor) -> Tensor:
        """Compute the penalty, a scalar.

        Args:
            logits: float32 [B, C].
            features: float32 [B, D].
            target: int64 [B].
            members: one-hot domains, float32 [B, number of domains].
        """
        raise NotImplementedError

    def loss(self, logits: Tensor, features: Tensor, target: Tensor, domain: Tensor) -> Tensor:
        """Compute the loss, the cross-entropy and the penalty, [3]."""
        classification = self.cross_entropy(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            members = one_hot(domain, self.domains).float()
            penalty = self.penalty(logits.float(), features.float(), target, members)
        return torch.stack([classification + self.strength * penalty, classification, penalty])


def _mean_over_pairs(values: Tensor, present: Tensor) -> Tensor:
    """Return the mean of ``values`` [E, E] over pairs of different domains that are ``present`` [E]; 0 without any."""
    both = (present[:, None] & present[None, :]).triu(diagonal=1)
    return (values * both).sum() / both.sum().clamp_min(1)


class Coral(Penalised):
    """CORAL: the distance between the means and the covariances of the domains' features.

    Sun and Saenko, Deep CORAL, ECCV workshops 2016; as in DomainBed with the means, averaged over pairs of domains.
    """

    def penalty(self, logits: Tensor, features: Tensor, target: Tensor, members: Tensor) -> Tensor:
        """Compute the penalty, a scalar; a domain needs two images."""
        counts = members.sum(dim=0)
        means = members.T @ features / counts.clamp_min(1)[:, None]
        mean_gap = (means[:, None] - means[None, :]).square().mean(dim=-1)
        # The scalar product of two covariances needs only those of the images' features, [B, B], not [E, D, D].
        centred = features - members @ means
        shares = members / (counts - 1).clamp_min(1)
        products = shares.T @ (centred @ centred.T).square() @ shares
        squares = products.diagonal()
        gaps = squares[:, None] + squares[None, :] - 2 * products
        covariance_gap = gaps.clamp_min(0) / features.shape[1] ** 2
        return _mean_over_pairs(mean_gap + covariance_gap, counts >= 2)


class Mmd(Penalised):
    """MMD: the maximum mean discrepancy between the domains' features, with a sum of Gaussian kernels.

    Li et al., Domain generalization with adversarial feature learning, CVPR 2018; kernels as in DomainBed, averaged
    over pairs of domains.
    """

    _GAMMAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)

    def penalty(self, logits: Tensor, features: Tensor, target: Tensor, members: Tensor) -> Tensor:
        """Compute the penalty, a scalar."""
        squares = features.square().sum(dim=1)
        distances = (squares[:, None] + squares[None, :] - 2 * features @ features.T).clamp_min(0)
        # Rounding would leave a distance of an image to itself, which the narrowest kernel notices.
        distances = distances * (1 - torch.eye(len(features), device=features.device))
        kernel = torch.stack([torch.exp(-gamma * distances) for gamma in self._GAMMAS]).sum(dim=0)
        counts = members.sum(dim=0)
        shares = members / counts.clamp_min(1)
        means = shares.T @ kernel @ shares
        own = means.diagonal()
        return _mean_over_pairs(own[:, None] + own[None, :] - 2 * means, counts > 0)


class Irm(Penalised):
    """IRM: the squared gradient of each domain's loss for a common factor of the logits (Arjovsky et al., 2019).

    Invariant risk minimization, IRMv1. The gradient at a factor of 1 has a closed form: the mean of the sum over
    classes of logit times (probability - truth).
    """

    def penalty(self, logits: Tensor, features: Tensor, target: Tensor, members: Tensor) -> Tensor:
        """Compute the penalty, a scalar: the mean over the domains of the batch."""
        truth = one_hot(target, logits.shape[1])
        slopes = (logits * (logits.softmax(dim=1) - truth)).sum(dim=1)
        if self.class_weight is not None:
            slopes = slopes * self.class_weight[target]
        counts = members.sum(dim=0)
        gradients = members.T @ slopes / counts.clamp_min(1)
        return gradients.square().sum() / (counts > 0).sum()


class GroupDro(Baseline):
    """GroupDRO: domains weighted by how high their losses have been (Sagawa et al., ICLR 2020).

    Distributionally robust neural networks for group shifts, algorithm 1; the strength is the step size eta of the
    weights, which all processes share.
    """

    def prepare(self, probabilities: NDArray[np.float64], device: torch.device) -> None:
        """Start from equal weights."""
        self.memory = nn.Module()
        self.memory.register_buffer("log_weights", torch.zeros(self.domains, device=device))

    def loss(self, logits: Tensor, features: Tensor, target: Tensor, domain: Tensor) -> Tensor:
        """Compute the loss, [1]: the weighted mean of the domains' losses; absent domains keep their weights."""
        losses = cross_entropy(logits.float(), target, reduction="none")
        if self.class_weight is not None:
            losses = losses * self.class_weight[target]
        members = one_hot(domain, self.domains).float()
        sums, counts = members.T @ losses, members.sum(dim=0)
        log_weights = self.memory.get_buffer("log_weights")
        everywhere = self.ranks.sum(torch.stack([sums.detach(), counts]))
        with torch.no_grad():
            log_weights += self.strength * everywhere[0] / everywhere[1].clamp_min(1)
            log_weights -= log_weights.logsumexp(dim=0)
            weights = torch.where(everywhere[1] > 0, log_weights.exp(), 0)
            weights /= weights.sum()
        # Gradients are averaged over the processes by their shares of the rows: the weighted sum becomes whole again.
        rows = everywhere[1].sum()
        return ((weights / everywhere[1].clamp_min(1) * rows / counts.sum()) * sums).sum().unsqueeze(0)


class Rsc(Baseline):
    """RSC: the features that the right answer leans on most are muted (Huang et al., ECCV 2020).

    Self-challenging improves cross-domain generalization; as in DomainBed, with the strength as the share of the
    features that are muted, and as that of the images for which they are: those whose answer changes most.
    """

    def attach(self, model: Classifier) -> None:
        """Keep the head, which turns muted features into logits."""
        self.head = model.head

    def loss(self, logits: Tensor, features: Tensor, target: Tensor, domain: Tensor) -> Tensor:
        """Compute the loss, [1]."""
        features, kept = features.float(), 1 - self.strength
        with torch.no_grad():
            slopes = self.head.weight[target]  # the gradient of the right answer's logit
            few = slopes < slopes.quantile(kept, dim=1, keepdim=True)
            muted = self.head(features * few)
            right = target[:, None]
            change = (logits.float().softmax(1).gather(1, right) - muted.softmax(1).gather(1, right)).squeeze(1)
            mask = few | (change < change.quantile(kept))[:, None]
        return self.cross_entropy(self.head(features * mask), target).unsqueeze(0)


class ErmPlusPlus(Baseline):
    """ERM with the parts of ERM++ that do not depend on the data (Teterwak et al., ERM++, 2023).

    The head learns first, if the other weights are trained ones; afterwards all weights do, BatchNorm's too, and their
    mean over all steps becomes the model. `TrainConfig` sets ``head_epochs`` and ``average`` accordingly.
    """


ALGORITHMS: Mapping[str, type[Baseline] | type[CCSA]] = {
    "ccsa": CCSA,
    "erm": Baseline,
    "balanced": Balanced,
    "focal": Focal,
    "logit_adjusted": LogitAdjusted,
    "mixup": Mixup,
    "coral": Coral,
    "mmd": Mmd,
    "irm": Irm,
    "group_dro": GroupDro,
    "rsc": Rsc,
    "ermpp": ErmPlusPlus,
}
