"""Grad-CAM compared with its definition where the gradient is known, and on real architectures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastccsa.evaluation.gradcam import grad_cam
from fastccsa.models import Classifier, build_model
from fastccsa.system.errors import InputError


def test_a_linear_readout_of_pooled_maps_has_a_cam_in_closed_form() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3, padding=1)
    network = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    model = Classifier(network, 4)
    images, classes = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1])
    # d logit_c / d map_k is weight[c, k] / 64 everywhere.
    maps = convolution(images).detach()
    expected = torch.einsum("nk,nkhw->nhw", model.head.weight[classes].detach(), maps).clamp_min(0)
    expected = expected / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(grad_cam(model, images, classes), expected, rtol=1e-4, atol=1e-5)


def test_a_map_without_support_is_zero_and_not_nan() -> None:
    convolution = nn.Conv2d(3, 2, 1)
    model = Classifier(nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)), 2)
    with torch.no_grad():
        convolution.weight.fill_(1.0)
        convolution.bias.zero_()
        model.head.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    cams = grad_cam(model, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
    assert cams[0].max() == 1
    assert cams[1].eq(0).all()


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "mobilenet_v3_small", "squeezenet1_1"])
def test_real_networks_have_maps_and_are_left_unchanged(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, 3, weights="none").eval()
    images = torch.randn(2, 3, 64, 64)
    before = model(images)[0].detach()
    cams = grad_cam(model, images, torch.tensor([0, 2]))
    assert cams.shape[0] == 2
    assert min(cams.shape[1:]) > 1
    assert ((cams >= 0) & (cams <= 1)).all()
    torch.testing.assert_close(model(images)[0].detach(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert images.grad is None


def test_images_that_are_too_small_for_maps_are_an_error() -> None:
    model = Classifier(nn.Sequential(nn.Conv2d(3, 2, 4), nn.Flatten(), nn.Linear(2, 2)), 2)
    with pytest.raises(InputError, match="more than one position"):
        grad_cam(model, torch.rand(1, 3, 4, 4), torch.tensor([0]))
