"""Models. To add one: write the module, name it in `build_model`, add its settings in config.py.

The weights a model starts from are drawn from torch's global generator, which the kit seeds with
`seeds.model_init` just before. What is known of the training rows (means, spreads, the baselines)
lies in buffers, so a checkpoint predicts from a table as it was measured.
"""

import torch
from torch import Tensor, nn

from experiment.config import MLP, Config

RIDGE_PENALTY = 10.0  # on standardized inputs


def build_model(config: Config, columns: int) -> "Standardized":
    """Return the model that `config.model` names, with random weights."""
    return Standardized(mlp(config.model, columns), columns)


def mlp(settings: MLP, columns: int) -> nn.Module:
    """Build `depth` hidden layers and a linear layer, from `columns` inputs to one number."""
    layers: list[nn.Module] = []
    inputs = columns
    for _ in range(settings.depth):
        layers += [nn.Linear(inputs, settings.width), nn.ReLU(), nn.Dropout(settings.dropout)]
        inputs = settings.width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


class Standardized(nn.Module):
    """A network that sees standardized inputs, and predicts a standardized target.

    Beside it, in float64, ridge regression: of standardized inputs, too.
    """

    mean: Tensor
    spread: Tensor
    target_mean: Tensor
    target_spread: Tensor
    ridge: Tensor

    def __init__(self, network: nn.Module, columns: int) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("spread", torch.ones(columns))
        self.register_buffer("target_mean", torch.zeros(()))
        self.register_buffer("target_spread", torch.ones(()))
        self.register_buffer("ridge", torch.zeros(columns, dtype=torch.float64))

    def fit_baselines(self, inputs: Tensor, targets: Tensor) -> None:
        """Take means, spreads and the ridge regression from the TRAINING rows.

        `inputs` (rows, columns), `targets` (rows). A column of one value has no spread: it is 0.
        """
        spread = inputs.std(0, correction=0)
        self.mean.copy_(inputs.mean(0))
        self.spread.copy_(torch.where(spread > 0, spread, 1.0))
        self.target_mean.copy_(targets.mean())
        self.target_spread.copy_(targets.std(correction=0))
        table = self.standardized(inputs).double()
        penalty = RIDGE_PENALTY * torch.eye(table.shape[1], dtype=torch.float64)
        centred = (targets - self.target_mean).double()
        self.ridge.copy_(torch.linalg.solve(table.T @ table + penalty, table.T @ centred))

    def standardized(self, inputs: Tensor) -> Tensor:
        """Return inputs (rows, columns) with the training rows' mean 0 and spread 1."""
        return (inputs - self.mean) / self.spread

    def standardized_targets(self, targets: Tensor) -> Tensor:
        """Return targets (rows) with the training rows' mean 0 and spread 1."""
        return (targets - self.target_mean) / self.target_spread

    def forward(self, inputs: Tensor) -> Tensor:
        """Predict the standardized targets (rows) of inputs (rows, columns) in their own units."""
        outputs: Tensor = self.network(self.standardized(inputs))
        return outputs.squeeze(1)

    def predict(self, inputs: Tensor) -> Tensor:
        """Predict the targets (rows), in their own unit, of inputs (rows, columns)."""
        predicted: Tensor = self.target_mean + self.target_spread * self(inputs)
        return predicted

    def predict_ridge(self, inputs: Tensor) -> Tensor:
        """Predict the targets (rows), in their own unit, by ridge regression."""
        return self.target_mean + self.standardized(inputs).double() @ self.ridge
