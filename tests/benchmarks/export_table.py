"""Prints rows for the tables of docs/EXPORT.md: the errors per stage and the matched boxes of
exports.

    python -m tests.benchmarks.export_table NETWORK [--exports plain scatter ...] [--cameras 1 6]

This program does what ``python -m bevdepth_core.export --check`` does, but PyTorch runs once for
all exports of a network. NETWORK is ``small``, or 1key, 2key or 2key_da with the weights of
tests/reference.py in the official layout. INT8 is calibrated on noise.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.export.check import compare_all, random_frames
from bevdepth_core.export.quantization import Samples
from bevdepth_core.export.writing import export_onnx, export_pt2
from bevdepth_core.model import BEVDepth
from tests.reference import filled_model

EXPORTS = {
    'plain': {'pooling': 'plain'},
    'scatter': {'pooling': 'scatter'},
    'custom': {'pooling': 'custom'},
    'native': {'pooling': 'custom', 'deformable': 'native'},
    'fp16': {'pooling': 'scatter', 'precision': 'fp16'},
    'int8': {'pooling': 'scatter', 'precision': 'int8'},
}
"""Maps the name of an export to options of ``export_onnx``. The export ``pt2`` is not in this
dictionary, because ``export_pt2`` writes it."""


def main() -> None:
    """Export, compare, print."""
    options = arguments()
    model = (
        load_checkpoint('small') if options.network == 'small' else filled_model(options.network)
    )
    model.requires_grad_(False)
    with tempfile.TemporaryDirectory() as parent:
        folders = [Path(parent) / name for name in options.exports]
        for folder in folders:
            export(model, folder)
        reports = compare_all(model, folders, options.cameras)
    cameras = ' '.join(map(str, options.cameras))
    for name, report in zip(options.exports, reports, strict=True):
        errors = ' | '.join(
            f'{error:.0e}'.replace('e-0', 'e-') for error in report.errors.values()
        )
        boxes = f'{report.matched} of {report.boxes}'
        print(f'| {options.network} | {name} | {cameras} | {errors} | {boxes} |', *report.problems)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('network', choices=('small', '1key', '2key', '2key_da'))
    parser.add_argument('--exports', nargs='+', choices=(*EXPORTS, 'pt2'), default=['plain'])
    parser.add_argument('--cameras', nargs='+', type=int, default=[1, 6])
    return parser.parse_args()


def export(model: BEVDepth, folder: Path) -> None:
    if folder.name == 'pt2':
        export_pt2(model, folder)
        return
    samples = None
    if folder.name == 'int8':
        samples = Samples.of(model, random_frames(6, np.random.default_rng(1)))
    export_onnx(model, folder, samples=samples, **EXPORTS[folder.name])


if __name__ == '__main__':
    main()
