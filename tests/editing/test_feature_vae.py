from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from demur.editing.feature_vae import FeatureVae, kl_to_standard, train_feature_vae


def test_the_divergence_is_that_of_torch_and_zero_for_a_standard_normal() -> None:
    torch.manual_seed(0)
    mean, spread = torch.randn(6, 8, dtype=torch.float64), torch.rand(6, 8, dtype=torch.float64) + 0.1
    of_torch = kl_divergence(Normal(mean, spread), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_standard(mean, spread), of_torch, rtol=1e-5, atol=1e-5)
    assert kl_to_standard(torch.zeros(2, 8), torch.ones(2, 8)).abs().max() < 1e-6


def test_the_loss_is_a_batch_mean_of_squared_distance_and_weighted_divergence() -> None:
    torch.manual_seed(0)
    vae, features = FeatureVae(12, latent=3), torch.randn(5, 12)
    torch.manual_seed(1)
    rebuilt = vae(features)
    torch.manual_seed(1)
    loss = vae.loss(features, kl_weight=0.5)
    expected = (rebuilt - features).square().sum() / 5 + 0.5 * kl_to_standard(*vae.encode(features)).sum() / 5
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(("width", "latent", "hidden"), [(256, 8, (128, 32)), (256, 16, (128, 32)), (64, 8, (32, 16))])
def test_widths_are_the_papers_at_its_size(width: int, latent: int, hidden: tuple[int, int]) -> None:
    vae = FeatureVae(width, latent)
    assert (vae.encoder[0].out_features, vae.encoder[2].out_features) == hidden


def test_it_learns_to_rebuild_and_comes_back_frozen() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 2) @ torch.randn(2, 16) + 3
    vae = train_feature_vae(features, latent=2, steps=400, learning_rate=1e-2)
    assert not vae.training and not any(p.requires_grad for p in vae.parameters())
    spread = float((features - features.mean(0)).square().sum(1).mean())
    assert float((vae(features) - features).square().sum(1).mean()) < spread / 2


def test_a_sigmoid_cannot_rebuild_features_outside_its_range() -> None:
    torch.manual_seed(0)
    features = torch.full((64, 16), 3.0) + 0.1 * torch.randn(64, 16)
    free, bound = (
        train_feature_vae(features, latent=2, steps=200, decoder_activation=activation)
        for activation in (None, "sigmoid")
    )
    assert float(bound(features).max()) <= 1
    assert float((free(features) - features).square().sum(1).mean()) < 16
