"""The cost volume of two frames: values, arguments, and the registered op."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from bevdepth_core.ops.cost_volume import cost_volume
from tests.core.ops.cost_cases import CostCase


def cost_of_pixel(case: CostCase, image: int, depth: int, row: int, column: int) -> list[float]:
    """Return the cost of each channel group at one pixel and depth, computed from the
    definition.
    """
    height, width = case.reference.shape[2:]
    d = float(case.depths[image, depth, row, column])
    u = column * (case.image_size[1] - 1) / (width - 1) * d
    v = row * (case.image_size[0] - 1) / (height - 1) * d
    x, y, z = (float(axis @ torch.tensor([u, v, d, 1.0]).double()) for axis in case.matrix[image])
    x, y = (4.0 * width, 4.0 * height) if z < 1e-3 else (x / z, y / z)
    x, y = x * width / (4 * width - 1) - 0.5, y * height / (4 * height - 1) - 0.5
    feature = torch.zeros(case.source.shape[1])
    for v, u in itertools.product(
        (math.floor(y), math.floor(y) + 1), range(math.floor(x), math.floor(x) + 2)
    ):
        if 0 <= v < height and 0 <= u < width:
            feature += (1 - abs(y - v)) * (1 - abs(x - u)) * case.source[image, :, v, u]
    product = case.reference[image, :, row, column] * feature
    return product.view(case.groups, -1).mean(dim=1).tolist()


def test_the_cost_of_a_pixel_is_the_mean_product_of_its_features_and_the_warped_features() -> None:
    case = CostCase.random()
    costs = cost_volume(*case.arguments)
    assert costs.shape == (2, 4, 3, 9, 18) and costs.dtype == torch.float32
    for place in itertools.product((0, 1), (0, 2), (0, 1, 4, 8), (0, 7, 17)):
        image, depth, row, column = place
        expected = cost_of_pixel(case, *place)
        assert costs[image, :, depth, row, column].tolist() == pytest.approx(expected, abs=1e-4)


def test_more_than_30_percent_of_the_costs_in_the_test_case_are_not_zero() -> None:
    costs = cost_volume(*CostCase.random().arguments)
    assert (costs != 0).float().mean() > 0.3


def test_the_costs_of_a_depth_do_not_depend_on_the_other_depths() -> None:
    case = CostCase.random(depths=5)
    costs = cost_volume(*case.arguments)
    single = replace(case, depths=case.depths[:, 3:4])
    assert torch.equal(cost_volume(*single.arguments), costs[:, :, 3:4])


def test_a_nan_depth_gives_nan_only_in_its_own_costs() -> None:
    case = CostCase.random()
    case.depths[0, 0, 0, 0] = math.nan
    costs = cost_volume(*case.arguments)
    assert costs[0, :, 0, 0, 0].isnan().all() and costs.isnan().sum() == case.groups


def test_half_precision_features_give_half_precision_costs() -> None:
    case = CostCase.random()
    half = case.to('cpu', torch.float16)
    expected = cost_volume(*half.to('cpu', torch.float32).arguments)
    costs = cost_volume(*half.arguments)
    assert costs.dtype == torch.float16
    assert torch.allclose(costs.float(), expected, rtol=1e-3, atol=1e-4)


def test_the_cost_volume_op_passes_opcheck() -> None:
    case = CostCase.random()
    arguments = (*case.arguments[:4], list(case.image_size), case.groups)
    torch.library.opcheck(torch.ops.bevdepth.cost_volume.default, arguments)


@pytest.mark.parametrize(
    ('changes', 'error', 'named'),
    [
        ({'source': torch.zeros(2, 16, 9, 17)}, ValueError, 'source must be maps'),
        ({'reference': torch.zeros(16, 9, 18)}, ValueError, 'reference and source'),
        ({'depths': torch.zeros(2, 3, 9, 17)}, ValueError, 'depths must have the shape'),
        ({'depths': torch.zeros(2, 9, 18)}, ValueError, 'depths must have the shape'),
        ({'matrix': torch.zeros(1, 3, 4).double()}, ValueError, 'matrix must have the shape'),
        ({'groups': 5}, ValueError, 'groups must divide the 16 channels'),
        ({'groups': 0}, ValueError, 'groups must divide'),
        ({'source': torch.zeros(2, 16, 9, 18).half()}, TypeError, 'source must be torch.float32'),
        ({'depths': torch.zeros(2, 3, 9, 18).half()}, TypeError, 'depths must be torch.float32'),
        ({'matrix': torch.zeros(2, 3, 4)}, TypeError, 'matrix must be torch.float64'),
    ],
)
def test_the_message_about_an_invalid_argument_names_the_argument(
    changes: dict, error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        cost_volume(*replace(CostCase.random(), **changes).arguments)


def test_features_of_an_integer_type_are_rejected() -> None:
    case = CostCase.random()
    maps = {'reference': case.reference.int(), 'source': case.source.int()}
    with pytest.raises(TypeError, match='reference must be float16, bfloat16 or float32'):
        cost_volume(*replace(case, **maps).arguments)
