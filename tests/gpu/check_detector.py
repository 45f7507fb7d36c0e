"""Compares the detector on a GPU with the official code, the CPU and Pillow."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.config import ImageSpec, ModelConfig, load_model_config
from bevdepth_core.engine.graphs import GraphedNetwork
from bevdepth_core.engine.upload import ImageUploader
from bevdepth_core.inference import PRECISIONS, Detector
from bevdepth_core.jpeg import JpegDecoder
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.depth_net import camera_vector
from bevdepth_core.model.view_transform import ego_from_frustum
from bevdepth_core.ops.circle_nms import circle_nms
from bevdepth_core.ops.deformable import deformable_columns
from bevdepth_core.ops.image_resize import resize_images
from bevdepth_core.ops.max_pool import max_pool
from bevdepth_core.preprocess import normalize, preprocess
from bevdepth_core.types import BOX_MAPS, CameraRig
from tests.core.frames import make_frame, make_rig
from tests.core.parity import match_boxes, sample_inputs
from tests.reference import ROOT, filled_model, golden, reference_path
from tests.sample import sample_frames, sample_paths

LARGEST_ERROR = {'fp32': 2e-3, 'fp16': 1e-2, 'bf16': 8e-2}
"""Largest accepted relative L2 error of BEV map and head maps, by precision. The official maps are
float32."""


@pytest.mark.parametrize('case', ['synth_2key', 'synth_2key_da'])
@pytest.mark.parametrize('precision', LARGEST_ERROR)
def test_cuda_graphs_give_the_official_maps(case, precision):
    network = GraphedNetwork(
        filled_model(case.split('_', 1)[1]), torch.device('cuda:0'), PRECISIONS[precision]
    )
    inputs, arrays = sample_inputs(case), golden(case)[1]
    run_official_inputs(network, inputs)
    steps = network._steps_for(inputs.images.shape[2])
    errors = {'bev': relative_error(steps._bev, arrays, 'backbone_bev')}
    for number, task in enumerate(network.config.head.tasks):
        widths = {**BOX_MAPS, 'heatmap': len(task.classes)}
        maps = dict(
            zip(
                widths,
                steps.maps[0, number, : sum(widths.values())].split(list(widths.values())),
                strict=True,
            )
        )
        for name, values in maps.items():
            errors[name] = max(
                errors.get(name, 0), relative_error(values, arrays, f'task{number}.{name}')
            )
    boxes = network_boxes(network)
    pairs, unmatched = match_boxes(
        boxes, arrays['out/b0/boxes'], arrays['out/b0/scores'], arrays['out/b0/labels']
    )
    figures = ', '.join(f'{name} {error:.1e}' for name, error in errors.items())
    print(
        f'\n{case} {precision}: {figures}; boxes matched {len(pairs)} of '
        f'{len(arrays["out/b0/boxes"])}, unmatched {unmatched}'
    )
    assert max(errors.values()) < LARGEST_ERROR[precision]


def run_official_inputs(network, inputs) -> None:
    """Encode the past frame, then the key frame. Both use the camera parameters of the key frame,
    as in the official code.
    """
    cameras = camera_vector(inputs.matrices.frame(0))
    cameras_per_frame = inputs.images.shape[2]
    network.prepare(cameras_per_frame)
    steps = network._steps_for(cameras_per_frame)
    with torch.inference_mode():
        for frame in (1, 0):
            steps.images[:, :3] = inputs.images[0, frame].cuda()
            steps.cameras_host.copy_(cameras[0])
            for name in steps.of_images:
                steps.run(name)
            torch.cuda.synchronize()
            matrix = ego_from_frustum(inputs.matrices.frame(frame))
            steps.set_matrices(frame, matrix[0])
            if frame == 1:
                steps.buffers.set(1, steps.buffers.features(0, cameras_per_frame))
        for name in ('view_transform', 'bev_head', 'decode'):
            steps.run(name)
    torch.cuda.synchronize()


def network_boxes(network):
    table = network._steps_for(1).boxes_host.numpy()
    return network._decoder.boxes(table, network.config.decode.score_threshold)


def relative_error(values, arrays, stage) -> float:
    expected = arrays[f'{stage}/val']
    ours = values.float().cpu().reshape(-1).numpy()[arrays[f'{stage}/idx']]
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


@pytest.fixture(scope='module')
def on_cpu():
    """Return two real frames, and the boxes that a float32 detector on the CPU finds in them."""
    frames = sample_frames(reference_path('nuscenes_sample'))
    detector = Detector(filled_model('2key'))
    return frames, [detector(frame) for frame in frames]


@pytest.mark.parametrize(
    ('precision', 'left_over'), [('fp32', 0.0), ('fp16', 0.03), ('bf16', 0.5)]
)
def test_streaming_on_the_gpu_gives_the_boxes_of_the_cpu(on_cpu, precision, left_over):
    # The weights are random, and the scores of the boxes are nearly equal. Rounding therefore
    # changes which boxes have the highest scores.
    frames, expected = on_cpu
    detector = Detector(filled_model('2key'), 'cuda', precision, cuda_graphs=True)
    for frame, wanted in zip(frames, expected, strict=True):
        found = detector(frame)
        assert found.past_stamp_ns == wanted.past_stamp_ns
        require_matching_boxes(f'{precision}', found, wanted, left_over)


def require_matching_boxes(what, found, wanted, left_over) -> None:
    pairs, unmatched = match_boxes(
        found, np.hstack((wanted.boxes.center, wanted.boxes.size)), wanted.scores, wanted.labels
    )
    ours, theirs = pairs.T
    center = np.linalg.norm(found.boxes.center[ours] - wanted.boxes.center[theirs], axis=1)
    score = np.abs(found.scores[ours] - wanted.scores[theirs])
    largest = f'center {center.max(initial=0):.1e} m, score {score.max(initial=0):.1e}'
    print(f'\n{what}: {len(pairs)} of {len(wanted)} boxes, {unmatched} unmatched, {largest}')
    assert len(pairs) > 50 and unmatched <= left_over * len(wanted)


def test_most_boxes_are_equal_if_jpegs_are_decoded_on_the_gpu_instead_of_with_pillow(on_cpu):
    frames, expected = on_cpu
    files = [path.read_bytes() for path in sample_paths(reference_path('nuscenes_sample'))]
    images = JpegDecoder('cuda')(files)
    assert all(image.is_cuda for image in images)
    differences = [
        np.abs(image.cpu().numpy().astype(int) - theirs)
        for image, theirs in zip(images, JpegDecoder('cpu')(files), strict=True)
    ]
    print(
        f'\ndifference of nvJPEG from Pillow: mean {np.mean(differences):.3f}, '
        f'largest {np.max(differences)}'
    )
    detector = Detector(filled_model('2key'), 'cuda', 'fp32', cuda_graphs=True)
    found = detector(dataclasses.replace(frames[0], images=images))
    require_matching_boxes('boxes from nvJPEG, fp32', found, expected[0], 0.2)
    assert np.mean(differences) < 1.5


def test_damaged_jpegs_are_rejected_as_on_the_cpu_and_later_jpegs_are_decoded():
    files = [path.read_bytes() for path in sample_paths(reference_path('nuscenes_sample'))]
    decoder, plain = JpegDecoder('cuda'), JpegDecoder('cpu')
    rng = np.random.default_rng(0)
    for place in range(40):
        damaged = bytearray(files[place % 6])
        if place % 2:
            damaged = damaged[: rng.integers(2, len(damaged) - 1)]
        else:
            damaged[rng.integers(2, len(damaged) - 2)] ^= int(rng.integers(1, 256))
        try:
            expected = plain([bytes(damaged)])[0]
        except ValueError:
            with pytest.raises(ValueError, match='image 0 is not a complete'):
                decoder([bytes(damaged)])
            continue
        assert decoder([bytes(damaged)])[0].shape == expected.shape
    assert np.abs(decoder(files)[0].cpu().numpy().astype(int) - plain(files)[0]).mean() < 1.5


@pytest.mark.parametrize('size', [(1600, 900), (640, 480), (1601, 903), (100, 700), (3000, 100)])
@pytest.mark.parametrize('spec', [ImageSpec(), ImageSpec(640, 1600)])
def test_images_resized_on_the_gpu_equal_images_resized_with_pillow_exactly(size, spec):
    images = np.random.default_rng(0).integers(0, 256, (2, size[1], size[0], 3), dtype=np.uint8)
    expected = normalize(torch.from_numpy(preprocess(images, spec)[0]), spec)
    config = dataclasses.replace(ModelConfig(), image=spec)
    planar = torch.from_numpy(images[1]).permute(2, 0, 1).contiguous().cuda().permute(1, 2, 0)
    out = torch.full((2, spec.height, spec.width, 4), 7.0, device='cuda').permute(0, 3, 1, 2)
    sources, plans = ImageUploader(config, torch.device('cuda:0')).upload([images[0], planar])
    resize_images(sources, plans, spec.mean, spec.std, out)
    assert torch.equal(out[:, :3].cpu(), expected) and not out[:, 3].any()


def test_circle_nms_on_the_gpu_equals_circle_nms_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    for boxes in (1, 37, 500, 1500):
        centers = 30 * torch.rand(6, boxes, 2, generator=generator)
        valid = torch.rand(6, boxes, generator=generator) > 0.2
        limits = torch.tensor([4.0, 12.0, 10.0, 1.0, 0.85, 0.175])
        expected = circle_nms(centers, valid, limits, 83)
        assert torch.equal(
            circle_nms(centers.cuda(), valid.cuda(), limits.cuda(), 83).cpu(), expected
        )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('channels', [64, 12, 512])
def test_deformable_columns_and_max_pooling_give_equal_results_on_gpu_and_cpu(dtype, channels):
    generator = torch.Generator().manual_seed(channels)
    features = (
        torch.randn(3, channels, 15, 22, generator=generator)
        .to(dtype)
        .contiguous(memory_format=torch.channels_last)
    )
    offsets = (3 * torch.randn(3, 18, 15, 22, generator=generator)).to(dtype)
    expected = deformable_columns(features, offsets, 4).float()
    found = deformable_columns(features.cuda(), offsets.cuda(), 4).float().cpu()
    assert (found - expected).norm() < {
        torch.float16: 1e-3,
        torch.bfloat16: 5e-3,
        torch.float32: 1e-5,
    }[dtype] * expected.norm()
    assert torch.equal(max_pool(features.cuda()).cpu(), max_pool(features))
    features[:, :, ::4, ::5] = torch.nan
    expected = max_pool(features)
    found = max_pool(features.cuda()).cpu()
    assert expected.isnan().any() and not expected.isnan().all()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_boxes_on_the_gpu_equal_boxes_on_the_cpu_when_the_number_of_cameras_changes():
    torch.manual_seed(0)
    model = BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')).eval()
    on_cpu, on_gpu = Detector(model), Detector(model, 'cuda', cuda_graphs=True)
    for step, count in enumerate((3, 6, 5, 6, 1, 4)):
        rig = make_rig(6)
        rig = CameraRig(rig.names[-count:], rig.intrinsics[-count:], rig.ego_from_camera[-count:])
        frame = make_frame(0.25 * step, rig, seed=step)
        found, wanted = on_gpu(frame), on_cpu(frame)
        assert found.past_stamp_ns == wanted.past_stamp_ns
        require_matching_boxes(f'{count} cameras', found, wanted, 0.01)
    assert on_gpu._network.capacity == 6


def test_the_detector_raises_an_error_if_gpu_memory_is_too_small_and_works_again_later():
    frame = make_frame(0.0, make_rig(2))
    detector = Detector(
        BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')).eval(),
        'cuda',
        'fp16',
    )
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            detector(frame)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(detector(frame)) > 0


def test_the_detector_on_the_gpu_needs_less_than_1_5_gib():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    detector = Detector(BEVDepth(ModelConfig()), 'cuda', 'fp16', cuda_graphs=True)
    rig = make_rig(6, 1600, 900)
    for index in range(12):
        found = detector(make_frame(index / 12, rig, size=(900, 1600)))
    print(f'\n{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB; {dict(found.stage_seconds)}')
    assert torch.cuda.max_memory_allocated() < 1.5 * 2**30
