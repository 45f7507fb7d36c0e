"""The command line: ``python -m bevdepth_core.export CHECKPOINT --out FOLDER``."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.engine.exported import MANIFEST, ExportError
from bevdepth_core.export.check import compare, print_report
from bevdepth_core.export.manifest import manifest
from bevdepth_core.export.onnx_graphs import network_parts, write_graph
from bevdepth_core.export.parts import POOLINGS
from bevdepth_core.files import write_atomically
from bevdepth_core.model import BEVDepth

DEFORMABLE = ('sampled', 'native')
"""Forms of the deformable convolution: GridSample and Conv, or the operator DeformConv."""


def export_onnx(
    model: BEVDepth,
    folder: Path,
    pooling: str = 'plain',
    deformable: str = 'sampled',
    name: str = 'unnamed',
) -> None:
    """Write the graphs of ``model`` and their manifest.

    Args:
        model: in evaluation mode, on the CPU.
        folder: made if it is missing; existing files are replaced.
        pooling: one of POOLINGS.
        deformable: one of DEFORMABLE.
        name: name of the weights, for the manifest.

    Raises:
        ExportError: the network cannot be exported so, or the package onnx is missing.
    """
    _require_exportable(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # no manifest describes files of two exports
    parts = network_parts(model, pooling, deformable == 'sampled')
    for part in parts:
        write_graph(part, folder / f'{part.name}.onnx')
    options = {
        'weights': name, 'precision': 'fp32', 'pooling': pooling, 'deformable': deformable,
    }  # fmt: skip
    text = json.dumps(manifest(model, parts, folder, options), indent=2)

    def write(path: str) -> None:
        Path(path).write_text(text)

    write_atomically(folder / MANIFEST, write)


def _require_exportable(model: BEVDepth) -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ExportError('the package onnx is missing; run `pip install onnx`') from error
    if model.config.stereo is not None:
        raise ExportError('stereo models cannot be exported; use a model without stereo')


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def _run(options: Namespace) -> None:
    model = load_checkpoint(options.checkpoint).requires_grad_(False)
    export_onnx(model, options.out, options.pooling, options.deformable, str(options.checkpoint))
    print(f'wrote {options.out / MANIFEST}')
    if options.check:
        report = compare(model, options.out, options.cameras)
        print_report(report)
        if report.problems:
            sys.exit('the export differs from the network: ' + '; '.join(report.problems))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog='python -m bevdepth_core.export', description='Export a network (docs/EXPORT.md).'
    )
    parser.add_argument('checkpoint', help='path, or name of weights such as small')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--format', choices=('onnx',), default='onnx')
    parser.add_argument('--pooling', choices=tuple(POOLINGS), default='plain')
    parser.add_argument('--deformable', choices=DEFORMABLE, default='sampled')
    parser.add_argument('--check', action='store_true', help='compare it with the Detector')
    parser.add_argument(
        '--cameras', type=int, nargs='+', default=[1, 6], help='numbers of cameras to check (1 6)'
    )
    return parser
