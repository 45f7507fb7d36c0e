"""The command line: ``python -m bevdepth_core.export CHECKPOINT --out FOLDER``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.engine.exported import FORMATS, MANIFEST, ExportError
from bevdepth_core.export.check import compare, print_report
from bevdepth_core.export.key_frames import KeyFrames
from bevdepth_core.export.layer_groups import GROUPS
from bevdepth_core.export.parts import ONNX_POOLINGS
from bevdepth_core.export.quantization import IN_FLOAT32, Samples
from bevdepth_core.export.writing import DEFORMABLE, PRECISIONS, export_onnx, export_pt2
from bevdepth_core.model import BEVDepth


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def _run(options: Namespace) -> None:
    model = load_checkpoint(options.checkpoint).requires_grad_(False)
    if options.format == 'pt2':
        _require_pt2_options(options)
        export_pt2(model, options.out, name=str(options.checkpoint))
    else:
        export_onnx(
            model,
            options.out,
            pooling=options.pooling or 'plain',
            deformable=options.deformable,
            precision=options.precision,
            samples=_samples(model, options),
            in_float32=options.in_float32,
            name=str(options.checkpoint),
        )
    print(f'wrote {options.out / MANIFEST}')
    if options.check:
        report = compare(model, options.out, options.cameras)
        print_report(report)
        if report.problems:
            sys.exit('the export differs from the network: ' + '; '.join(report.problems))


def _require_pt2_options(options: Namespace) -> None:
    chosen = (options.precision, options.pooling, options.deformable)
    if chosen != ('fp32', None, 'sampled'):
        raise ExportError(
            'the format pt2 does not support these options: leave out --precision, --pooling and '
            '--deformable, or use --format onnx'
        )


def _samples(model: BEVDepth, options: Namespace) -> Samples | None:
    if options.precision != 'int8':
        return None
    if options.calibration is None:
        raise ExportError(
            'int8 is calibrated on key frames: set --calibration to a dataset folder'
        )
    frames = KeyFrames(options.calibration, options.version, options.split, options.key_frames)
    return Samples.of(model, frames.load())


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog='python -m bevdepth_core.export', description='Export a network (docs/EXPORT.md).'
    )
    parser.add_argument('checkpoint', help='path, or name of weights, such as small')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--format', choices=tuple(FORMATS), default='onnx')
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32')
    parser.add_argument(
        '--pooling', choices=ONNX_POOLINGS, help='pooling in ONNX graphs (default plain)'
    )
    parser.add_argument('--deformable', choices=DEFORMABLE, default='sampled')
    parser.add_argument(
        '--calibration',
        type=Path,
        help='folder of a dataset in nuScenes format; its key frames calibrate the scales of int8',
    )
    parser.add_argument(
        '--version',
        default='v1.0-synthetic',
        help='version of the calibration dataset (default v1.0-synthetic)',
    )
    parser.add_argument(
        '--split',
        default='synthetic_train',
        help='split of the calibration dataset (default synthetic_train)',
    )
    parser.add_argument(
        '--key-frames',
        type=int,
        default=24,
        help='largest number of key frames for the calibration (default 24)',
    )
    parser.add_argument(
        '--in-float32',
        nargs='*',
        choices=tuple(GROUPS),
        metavar='GROUP',
        default=IN_FLOAT32,
        help=f'groups of layers that int8 leaves in float32 (default {" ".join(IN_FLOAT32)})',
    )
    parser.add_argument(
        '--check', action='store_true', help='compare the export with the network in PyTorch'
    )
    parser.add_argument(
        '--cameras',
        type=int,
        nargs='+',
        default=[1, 6],
        help='numbers of cameras with which --check runs both networks (default 1 6)',
    )
    return parser
