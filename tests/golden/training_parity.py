"""Compares losses, gradients and batch norm statistics of a training step with the numbers of the
official code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bevdepth_core.config import load_model_config
from bevdepth_core.official_layout import to_official_name
from bevdepth_core.training.criterion import Losses, criterion
from bevdepth_core.training.module import BEVDepthModule, ModelSettings
from bevdepth_core.training.targets import TaskTargets, center_targets, depth_targets
from bevdepth_core.types import CameraMatrices, ModelInputs, ModelOutputs
from tests.core.parity import real_images
from tests.reference import PRESETS, ROOT, fill, uniform

CANCELLED = 1e-4
"""Smallest denominator of the relative difference between two gradients. It is needed for a bias
whose gradient terms cancel. Such a gradient is exactly 0 in the official code and about 1e-8
in this project."""
BOX_MAPS = ('reg', 'height', 'dim', 'rot', 'vel')


@dataclass
class Case:
    """The official numbers of a golden case, and our module, inputs and depth targets for this
    case."""

    reference: dict
    arrays: dict[str, np.ndarray]
    module: BEVDepthModule
    inputs: ModelInputs
    depth_bins: torch.Tensor

    @classmethod
    def of(cls, variant: str, reference: dict, arrays: dict[str, np.ndarray]) -> Case:
        """Return the case whose network is the model preset ``PRESETS[variant]``."""
        network = load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[variant]}.yaml')
        module = BEVDepthModule(ModelSettings(network=network, pretrained='none'))
        fill(module.model)
        matrices = (
            torch.from_numpy(arrays[f'in/{name}'])
            for name in ('sensor2ego_mats', 'intrin_mats', 'ida_mats', 'bda_mat')
        )
        inputs = ModelInputs(real_images().expand(1, 2, -1, -1, -1, -1), CameraMatrices(*matrices))
        depth_bins = depth_targets(sparse_depth(), network.depth_bins)
        return cls(reference, arrays, module, inputs, depth_bins)

    def losses(self, outputs: ModelOutputs, boxes: str) -> Losses:
        return criterion(
            outputs,
            official_targets(self.arrays, boxes),
            self.depth_bins,
            self.module.settings.code_weights,
        )

    def official_name(self, name: str) -> str:
        return to_official_name(name, self.module.model.stereo is not None)


def forward_with_norms_in_eval_mode(case: Case) -> ModelOutputs:
    """Run one forward and backward pass with every batch norm in evaluation mode and without
    dropout. The parameters of the module keep the gradients of the loss for the synthetic boxes
    (``made``).
    """
    fill(case.module.model)
    case.module.train()
    for layer in case.module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            layer.eval()
    outputs = case.module.model(case.inputs)
    case.losses(outputs, 'made').total.backward()
    return ModelOutputs(
        tuple(
            type(maps)(**{name: getattr(maps, name).detach() for name in (*BOX_MAPS, 'heatmap')})
            for maps in outputs.tasks
        ),
        outputs.depth.detach(),
    )


@torch.no_grad()
def forward_with_norms_in_training_mode(
    case: Case,
) -> tuple[ModelOutputs, dict[str, torch.Tensor]]:
    """Run one forward pass in training mode without dropout. Return the outputs, and the state of
    the model after the pass."""
    fill(case.module.model)
    case.module.train()
    case.module.model.depth_net.pyramid.dropout.eval()
    outputs = case.module.model(case.inputs)
    return outputs, {
        name: tensor.clone() for name, tensor in case.module.model.state_dict().items()
    }


def official_targets(arrays: dict[str, np.ndarray], boxes: str) -> tuple[TaskTargets, ...]:
    boxes, labels = (
        torch.from_numpy(arrays[f'gt/{boxes}/b0/{name}']) for name in ('boxes', 'labels')
    )
    return center_targets(boxes, labels.long(), ModelSettings().network)


def sparse_depth() -> torch.Tensor:
    shape = (1, 6, 256, 704)
    depth = np.where(
        uniform('depth_mask', shape) > 0.99, 1 + 32 * (uniform('depth_value', shape) + 1), 0
    )
    return torch.from_numpy(depth.astype(np.float32))


def require_losses(ours: Losses, official: dict, tolerance: float) -> None:
    np.testing.assert_allclose(ours.depth.item(), official['depth_loss'], rtol=tolerance)
    np.testing.assert_allclose(ours.detection.item(), official['detection_loss'], rtol=tolerance)
    np.testing.assert_allclose(ours.total.item(), official['total'], rtol=tolerance)
    np.testing.assert_allclose(ours.heatmap, official['heatmap_loss_per_task'], rtol=tolerance)
    np.testing.assert_allclose(ours.box, official['bbox_loss_per_task'], rtol=tolerance)


def gradient_distances(case: Case) -> dict[str, float]:
    """For each parameter with a gradient, compare norm, sum and absolute sum of the gradient with
    the official numbers. Return the largest of the three relative differences.

    Raises:
        AssertionError: the set of parameters with a gradient differs from the official set.
    """
    official = case.reference['bn_eval']['grad']
    ours = {
        case.official_name(name): parameter.grad
        for name, parameter in case.module.model.named_parameters()
    }
    assert ours.keys() == official.keys()
    without = [name for name, numbers in official.items() if numbers is None]
    assert [name for name, gradient in ours.items() if gradient is None] == without
    return {
        name: _distance(gradient.double(), official[name])
        for name, gradient in ours.items()
        if gradient is not None
    }


def _distance(values: torch.Tensor, expected: dict) -> float:
    found = {'l2': values.norm(), 'abssum': values.abs().sum(), 'sum': values.sum()}
    scales = {key: max(expected[key if key == 'l2' else 'abssum'], CANCELLED) for key in found}
    return max(abs(found[key].item() - expected[key]) / scales[key] for key in found)


def total_gradient(case: Case) -> float:
    """Return the L2 norm of the vector of all gradients."""
    gradients = [p.grad.double() for p in case.module.parameters() if p.grad is not None]
    return sum(gradient.square().sum().item() for gradient in gradients) ** 0.5


def statistics_distances(case: Case, state: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return the difference between each batch norm statistic after the forward pass and the
    official statistic: the relative difference of the norms of running means and variances, and
    the absolute difference of ``num_batches_tracked``."""
    found = {case.official_name(name): tensor.double() for name, tensor in state.items()}
    distances = {}
    for name, expected in case.reference['bn_train']['running_stats_after_one_forward'].items():
        if name.endswith('num_batches_tracked'):
            distances[name] = abs(found[name].item() - expected)
        else:
            distances[name] = abs(found[name].norm().item() / expected['l2'] - 1)
    return distances
