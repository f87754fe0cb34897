"""BatchNorm over the batches of all ranks, also on CPUs, which torch's SyncBatchNorm does not support."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastccsa.training.ranks import rows_of_all_ranks


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` over the images of all ranks of the default process group."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalise [N, C, H, W]; the ranks' N may differ."""
        if not self.training:
            return super().forward(images)
        x = images.to(torch.promote_types(images.dtype, torch.float32))
        own_mean = x.mean((0, 2, 3))
        own_spread = (x - own_mean[:, None, None]).square().sum((0, 2, 3))
        own_count = x.new_tensor([x.numel() // x.shape[1]])
        own = torch.cat([own_mean, own_spread, own_count])[None]
        # One exchange per layer, and no cancellation, unlike the mean of squares minus the square of the mean.
        ranks = rows_of_all_ranks(own, dist.get_rank(), dist.get_world_size() - dist.get_rank() - 1)
        means, spreads, counts = ranks.split([x.shape[1], x.shape[1], 1], dim=1)
        count = counts.sum().detach()
        mean = (counts * means).sum(0) / count
        variance = (spreads + counts * (means - mean).square()).sum(0) / count
        self._remember(mean.detach(), variance.detach(), count)
        normalised = (x - mean[:, None, None]) * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised.to(images.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)


def share_batchnorm(model: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm of ``model`` use the statistics of all ranks, in place; weights and names do not change."""
    for name, child in model.named_children():
        if device.type == "cuda" and isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        elif type(child) is nn.BatchNorm2d:
            setattr(model, name, _shared(child))
        else:
            share_batchnorm(child, device)


def _shared(module: nn.BatchNorm2d) -> SharedBatchNorm2d:
    shared = SharedBatchNorm2d(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
    )
    shared.load_state_dict(module.state_dict())
    return shared.to(next(iter(module.state_dict().values())))
