"""Stereo depth: candidates, warping, refinement, bins, gradients and config."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bevdepth_core.config import (
    DepthBins,
    ModelConfig,
    SizeAwareNMSConfig,
    StereoConfig,
)
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.stereo_depth import (
    StereoDepth,
    bin_density,
    candidate_factors,
    updated,
)
from bevdepth_core.model.view_transform import StereoFeatures, camera_from_frustum
from bevdepth_core.ops.warping import source_from_reference, warp
from tests.networks import TINY

IMAGE_SIZE = (32, 64)
IDENTITY = torch.eye(4, dtype=torch.float64)[None, :3]
STEREO = replace(
    TINY,
    depth_bins=DepthBins(2.0, 18.0, 2.0),
    stereo=StereoConfig(range_bounds=(2.0, 6.0, 18.0), groups=4),
)


@pytest.fixture
def stereo() -> StereoDepth:
    torch.manual_seed(0)
    return StereoDepth(STEREO).eval()


def features(seed: int, cameras: int = 2, config: ModelConfig = STEREO) -> StereoFeatures:
    generator = torch.Generator().manual_seed(seed)
    height, width = config.image.height // 16, config.image.width // 16

    def noise(channels: int, up: int) -> torch.Tensor:
        return torch.randn(1, cameras, channels, up * height, up * width, generator=generator)

    return StereoFeatures(
        noise(config.image_encoder.first_stage_channels, 4),
        noise(config.depth_bins.count, 1),
        noise(6, 4),
    )


def pair_matrices(cameras: int = 2, shift: float = 0.5) -> torch.Tensor:
    """Return the ``source_from_reference`` matrices of cameras. In the source frame, each camera
    is ``shift`` meters farther right than in the reference frame.
    """
    intrinsics = torch.diag(torch.tensor([40.0, 40.0, 1.0, 1.0], dtype=torch.float64))
    intrinsics[0, 2], intrinsics[1, 2] = 32.0, 16.0
    frustum = camera_from_frustum(
        intrinsics.expand(1, cameras, 4, 4), torch.eye(4).expand(1, cameras, 4, 4)
    )
    shifted = frustum.clone()
    shifted[..., 0, 3] += shift
    return source_from_reference(frustum[..., :3, :], shifted[..., :3, :])


def test_depth_candidates_are_the_centers_of_three_equally_probable_parts() -> None:
    expected = torch.tensor([-1.7147450447, 0.0, 1.7147450447])
    assert torch.allclose(candidate_factors(), expected, atol=1e-7)


def test_a_pixel_moves_left_in_the_source_frame_if_its_camera_is_farther_right() -> None:
    matrix = pair_matrices()[0, 0]
    u, v, depth = 20.0, 10.0, 5.0
    there = matrix @ torch.tensor([u * depth, v * depth, depth, 1.0], dtype=torch.float64)
    # 0.5 m to the right at 5 m depth and 40 pixels focal length are 4 pixels to the left.
    assert there.tolist() == pytest.approx([16.0 * depth, 10.0 * depth, depth])


def test_a_warp_without_motion_is_shifted_by_half_a_cell_at_the_borders() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 8, 16)
    warped = warp(ramp, torch.full((1, 8, 16), 7.0), IDENTITY, IMAGE_SIZE)
    column = torch.arange(16.0) * 16 / 15 - 0.5
    inner = slice(1, 15)
    assert torch.allclose(warped[0, 0, 4, inner], column[inner], atol=1e-4)
    # Half of the first pixel lies outside the image.
    assert warped[0, 0, 4, 0].item() == pytest.approx(0.0, abs=1e-4)
    assert warped[0, 0, 4, 15].item() == pytest.approx(15 / 2, abs=1e-3)
    assert warped[0, 0, 0, 8].item() == pytest.approx(column[8].item() / 2, abs=1e-3)


def test_a_nearer_point_is_warped_over_a_longer_distance_in_the_image() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 8, 16)
    matrix = pair_matrices()[:, 0]
    near, far = (
        warp(ramp, torch.full((1, 8, 16), depth), matrix, IMAGE_SIZE)[0, 0, 4, 10].item()
        for depth in (5.0, 10.0)
    )
    still = 10 * 16 / 15 - 0.5
    assert (still - near, still - far) == pytest.approx((4 * 16 / 63, 2 * 16 / 63), abs=1e-4)


@pytest.mark.parametrize('depth', [-5.0, 0.0, 0.9e-3])
def test_the_warp_of_a_point_at_a_depth_below_1_mm_reads_a_small_part_of_the_last_pixel(
    depth: float,
) -> None:
    maps = torch.zeros(1, 1, 8, 16)
    maps[..., -1, -1] = 1.0
    warped = warp(maps, torch.full((1, 8, 16), depth), IDENTITY, IMAGE_SIZE)
    share = (16 - (64 * 16 / 63 - 0.5)) * (8 - (32 * 8 / 31 - 0.5))
    assert torch.allclose(warped, torch.full_like(warped, share), atol=1e-5)
    assert 0.03 < share < 1 / 16


def test_a_point_at_a_depth_of_more_than_1_mm_is_warped_to_a_pixel() -> None:
    maps = torch.ones(1, 1, 8, 16)
    warped = warp(maps, torch.full((1, 8, 16), 1.1e-3), IDENTITY, IMAGE_SIZE)
    assert warped[0, 0, 4, 8].item() == pytest.approx(1.0)


def test_depth_maps_of_stride_16_are_read_with_the_pixel_positions_of_stride_4() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 2, 4)
    warped = warp(ramp, torch.full((1, 2, 4), 7.0), IDENTITY, IMAGE_SIZE)
    # The four columns of the warped map are at columns 0, 21, 42 and 63 of the image. Read with
    # stride 4, a map of four columns ends at column 15 of the image.
    assert (warped[..., 1:] == 0).all()


def test_an_update_moves_the_mean_to_the_better_candidate_and_bounds_the_spread() -> None:
    candidates = torch.tensor([2.0, 4.0, 6.0]).view(1, 3, 1, 1)
    spread = torch.full((1, 1, 1, 1), 2.0)
    scores = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1)
    mean, wider = updated(candidates, spread, scores)
    share = scores.flatten().softmax(0)
    assert mean.item() == pytest.approx((candidates.flatten() * share).sum().item())
    assert wider.item() == pytest.approx(2.0 * 0.5 / (1e-4 + share[1].item()), rel=1e-6)
    certain = torch.tensor([-50.0, 50.0, -50.0]).view(1, 3, 1, 1)
    assert updated(candidates, spread, certain)[1].item() == pytest.approx(1.0 / 1.0001, rel=1e-4)
    lost = torch.tensor([50.0, -50.0, 50.0]).view(1, 3, 1, 1)
    assert updated(candidates, spread, lost)[1].item() == pytest.approx(10.0)
    assert updated(candidates, spread / 1e3, certain)[1].item() == pytest.approx(0.1)
    assert updated(candidates, spread / 10, lost)[1].item() == pytest.approx(2.0)


def test_the_spread_is_sigma_in_the_factor_and_variance_in_the_exponent_of_the_bin_density() -> (
    None
):
    mean, spread = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 4.0)
    density = bin_density(torch.tensor([3.0, 5.0]), mean, spread).flatten()
    assert density[0].item() == pytest.approx(1 / (4 * 2.5066283), rel=1e-5)
    assert (density[1] / density[0]).item() == pytest.approx(0.6065307, rel=1e-5)  # exp(-4 / 8)


def test_the_depth_distributions_have_the_shape_of_the_logits_and_sum_to_1(
    stereo: StereoDepth,
) -> None:
    depth = stereo(features(1), features(2), pair_matrices())
    for distribution in (depth.masked, depth.unmasked):
        assert distribution.shape == (1, 2, 8, 2, 4)
        assert torch.allclose(distribution.sum(dim=2), torch.ones(1, 2, 2, 4), atol=1e-5)
    assert not torch.allclose(depth.masked, depth.unmasked)


def test_each_camera_is_compared_with_its_own_image_in_the_past_frame(stereo: StereoDepth) -> None:
    reference, source, matrix = features(1), features(2), pair_matrices()
    original = stereo(reference, source, matrix).masked
    swapped = stereo(
        *(
            StereoFeatures(
                each.features.flip(1), each.mono_logits.flip(1), each.hypotheses.flip(1)
            )
            for each in (reference, source)
        ),
        matrix,
    ).masked
    assert torch.allclose(original.flip(1), swapped, atol=1e-6)


def test_the_density_of_a_hypothesis_is_zero_outside_the_bins_of_its_range(
    stereo: StereoDepth,
) -> None:
    inputs = []
    stereo.downsample.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    reference = features(1)
    scores = torch.full_like(reference.hypotheses[:, :, 4:], -400.0)
    scores[:, :, 1] = 400.0  # only the far range has weight
    hypotheses = torch.cat((reference.hypotheses[:, :, :4], scores), dim=2)
    stereo(replace(reference, hypotheses=hypotheses), features(2), pair_matrices())
    assert inputs[0].shape == (2, 8, 8, 16)
    assert (inputs[0][:, :2] == 0).all() and (inputs[0][:, 2:].sum(dim=1) > 0).any()


def test_the_clamp_keeps_each_mean_in_the_depth_range_of_its_hypothesis() -> None:
    means = {}
    for clamp in (False, True):
        torch.manual_seed(0)
        config = replace(STEREO, stereo=replace(STEREO.stereo, clamp_mean=clamp))
        network = StereoDepth(config).eval()
        # With such large weights, one candidate is certain at each pixel.
        network.similarity[2].weight.data *= 1e4
        kept: list[torch.Tensor] = []
        real = network._masks
        network._masks = lambda mean, pair, kept=kept, real=real: (  # type: ignore[method-assign]
            kept.extend(mean.unbind(1)) or real(mean, pair)
        )
        reference = features(1)
        hypotheses = reference.hypotheses.clone()
        hypotheses[:, :, :2] = 6.0  # the sigmoid of 6 is near 1: far end of each range
        hypotheses[:, :, 2:4] = 3.0  # large spreads
        network(replace(reference, hypotheses=hypotheses), features(2), pair_matrices())
        means[clamp] = kept
    for free, clamped, (low, high) in zip(
        means[False], means[True], ((2, 6), (6, 18)), strict=True
    ):
        assert free.min() < low or free.max() > high
        assert torch.equal(clamped, free.clamp(low, high))


def test_only_the_hypotheses_and_logits_of_the_reference_frame_get_gradients(
    stereo: StereoDepth,
) -> None:
    stereo.train()
    pair = [features(1), features(2)]
    for frame in pair:
        for tensor in vars(frame).values():
            tensor.requires_grad_()
    depth = stereo(*pair, pair_matrices())
    (depth.masked[:, :, 0].sum() + depth.unmasked[:, :, 1].sum()).backward()
    assert pair[0].mono_logits.grad is not None
    gradient = pair[0].hypotheses.grad
    assert gradient is not None and (gradient.abs().amax(dim=(0, 1, 3, 4)) > 0).all()
    assert pair[0].features.grad is None
    assert all(tensor.grad is None for tensor in vars(pair[1]).values())
    without = [name for name, weight in stereo.named_parameters() if weight.grad is None]
    assert without == []


def test_training_updates_each_batch_norm_as_many_times_as_the_official_code() -> None:
    torch.manual_seed(0)
    model = BEVDepth(STEREO).train()
    encoded = [
        model.encode_images(torch.randn(2, 2, 3, 32, 64), torch.randn(2, 2, 27)) for _ in range(2)
    ]
    matrix = pair_matrices()[..., :3, :].expand(2, 2, 3, 4)
    model.match([(frame, matrix) for frame in encoded])
    state = model.state_dict()
    assert state['stereo.similarity.0.1.num_batches_tracked'] == 2 * 2 * 3
    assert state['stereo.mask.1.num_batches_tracked'] == 2 * 2
    assert state['stereo.downsample.1.num_batches_tracked'] == 3
    assert state['depth_net.mono_head.0.bn1.num_batches_tracked'] == 2


def test_the_depth_of_the_past_frame_has_no_gradient() -> None:
    torch.manual_seed(0)
    model = BEVDepth(STEREO).eval()
    frames = [
        model.encode_images(torch.randn(1, 2, 3, 32, 64), torch.randn(1, 2, 27)) for _ in range(2)
    ]
    matched, depth = model.match([(frame, IDENTITY.expand(1, 2, 3, 4)) for frame in frames])
    assert matched[0].depth.requires_grad and depth.requires_grad
    assert not matched[1].depth.requires_grad


def test_frames_are_compared_in_both_directions() -> None:
    torch.manual_seed(0)
    model = BEVDepth(STEREO).eval()
    frames = [
        model.encode_images(torch.randn(1, 2, 3, 32, 64), torch.randn(1, 2, 27)) for _ in range(2)
    ]
    poses = [IDENTITY.expand(1, 2, 3, 4).clone() for _ in range(2)]
    poses[1][..., 0, 3] = 3.0
    ours = [frame.depth for frame in model.match(list(zip(frames, poses, strict=True)))[0]]
    back = model.match(list(zip(frames[::-1], poses[::-1], strict=True)))[0]
    assert torch.allclose(ours[1], back[0].depth, atol=1e-6)
    there = source_from_reference(poses[0], poses[1])
    assert torch.allclose(ours[0], model.stereo(frames[0].stereo, frames[1].stereo, there).masked)
    assert not torch.allclose(ours[0], frames[0].depth)


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'key_frames': 1}, 'stereo needs key_frames 2'),
        ({'stereo': StereoConfig(range_bounds=(2.0, 17.0))}, 'stereo.range_bounds'),
        ({'stereo': StereoConfig(range_bounds=(4.0, 18.0))}, 'stereo.range_bounds'),
        ({'stereo': StereoConfig(range_bounds=(2.0, 5.0, 18.0))}, 'stereo.range_bounds'),
        ({'stereo': StereoConfig(range_bounds=(2.0, 18.0), groups=7)}, 'stereo.groups'),
        (
            {'image_encoder': replace(TINY.image_encoder, stride=8)},
            'stereo needs image_encoder.stride 16',
        ),
    ],
)
def test_the_error_about_a_stereo_config_that_contradicts_the_network_names_the_option(
    changes: dict, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        replace(STEREO, **changes)


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'range_bounds': (2.0,)}, 'range_bounds'),
        ({'range_bounds': (2.0, 2.0)}, 'range_bounds'),
        ({'range_bounds': (2.0, float('nan'))}, 'range_bounds'),
        ({'iterations': 0}, 'iterations'),
        ({'iterations': 101}, 'iterations'),
        ({'groups': 0}, 'groups'),
    ],
)
def test_the_error_about_an_invalid_value_in_the_stereo_section_names_the_option(
    changes: dict, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        StereoConfig(**changes)


def test_the_size_aware_nms_requires_a_positive_factor_for_each_task() -> None:
    with pytest.raises(ValueError, match='size_aware_nms'):
        SizeAwareNMSConfig((1.0, 0.0))
    with pytest.raises(ValueError, match='each of the 6 tasks'):
        replace(STEREO, decode=replace(STEREO.decode, size_aware_nms=SizeAwareNMSConfig((1.0,))))
