"""A small variational autoencoder that knows where a model's features lie."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from demur.models.descent import batches

__all__ = ["Activation", "FeatureVae", "train_feature_vae"]

Activation = Literal["sigmoid"] | None


class FeatureVae(nn.Module):
    """Two hidden layers to a Gaussian code and two back.

    Args:
        width: of the features.
        latent: of the code.
        decoder_activation: "sigmoid" confines what is rebuilt to (0, 1), as the paper's code does, although features
            are unbounded; None does not.
    """

    def __init__(self, width: int, latent: int = 8, decoder_activation: Activation = None) -> None:
        super().__init__()
        # 256 features and 8 or 16 codes give the paper's 128 and 32.
        outer, inner = max(width // 2, 2 * latent), max(width // 8, 2 * latent)
        self.encoder = nn.Sequential(nn.Linear(width, outer), nn.ReLU(), nn.Linear(outer, inner), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(inner, latent), nn.Linear(inner, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, inner), nn.ReLU(), nn.Linear(inner, outer), nn.ReLU(), nn.Linear(outer, width)
        )
        if decoder_activation == "sigmoid":
            self.decoder.append(nn.Sigmoid())

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, latent) means and standard deviations of the codes of (rows, width) features."""
        hidden = self.encoder(features)
        return self.mean(hidden), torch.exp(0.5 * self.log_variance(hidden))

    def forward(self, features: Tensor) -> Tensor:
        """(rows, width) features rebuilt from codes that are drawn."""
        mean, spread = self.encode(features)
        out: Tensor = self.decoder(mean + spread * torch.randn_like(spread))
        return out

    def loss(self, features: Tensor, kl_weight: float = 0.025) -> Tensor:
        """Squared error of a row's reconstruction plus its code's divergence, as a mean over rows (2404.00506's code).

        Args:
            features: (rows, width).
            kl_weight: of the divergence from a standard normal.
        """
        mean, spread = self.encode(features)
        rebuilt = self.decoder(mean + spread * torch.randn_like(spread))
        return (rebuilt - features).square().sum(1).mean() + kl_weight * kl_to_standard(mean, spread).mean()


def kl_to_standard(mean: Tensor, spread: Tensor) -> Tensor:
    """(rows,) KL(N(μ, σ²) ‖ N(0, 1)) in nats, summed over the code.

    Args:
        mean: (rows, latent) μ.
        spread: (rows, latent) σ.
    """
    variance = spread.square()
    return -0.5 * (torch.log(variance + 1e-8) + 1 - mean.square() - variance).sum(1)


def train_feature_vae(
    features: Tensor,
    *,
    latent: int = 8,
    decoder_activation: Activation = None,
    steps: int,
    learning_rate: float = 1e-3,
    kl_weight: float = 0.025,
    batch_size: int = 32,
    seed: tuple[int, ...] = (0,),
) -> FeatureVae:
    """Train an autoencoder on features with Adam; it comes back frozen.

    Args:
        features: (rows, width).
        latent, decoder_activation: of the autoencoder.
        steps: how many batches.
        learning_rate, kl_weight, batch_size: of the training.
        seed: of the order of the rows; weights and codes come from torch's own generator.
    """
    vae = FeatureVae(features.shape[1], latent, decoder_activation).to(features.dtype)
    optimizer = torch.optim.Adam(vae.parameters(), lr=learning_rate)
    done, epoch = 0, 0
    while done < steps:
        for rows in batches(len(features), batch_size, (*seed, epoch)):
            if done == steps:
                break
            optimizer.zero_grad()
            vae.loss(features[rows], kl_weight).backward()
            optimizer.step()
            done += 1
        epoch += 1
    return vae.requires_grad_(False).eval()
