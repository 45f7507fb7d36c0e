"""Reads the files of an exported network: graphs and ``manifest.json`` (docs/EXPORT.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bevdepth_core.config import model_config_to_dict
from bevdepth_core.model import BEVDepth

MANIFEST = 'manifest.json'
FORMATS = {'onnx': 'bevdepth-onnx-1', 'pt2': 'bevdepth-pt2-1'}
"""Maps the file ending of the graphs to the value of ``format`` in the manifest."""
WRITE_AGAIN = 'write it with `python -m bevdepth_core.export CHECKPOINT --out FOLDER`'


Graph = Callable[..., Sequence[Tensor]]
"""Type of a function that runs a part of an exported network. Inputs and outputs have the order of
the manifest."""


GRAPHS = ('image_branch', 'splat', 'detection')
"""Names of the graphs of an exported network, in the order of the computation."""


class ExportError(ValueError):
    """An exported network is invalid or belongs to other weights; the message names the remedy."""


@dataclass(frozen=True)
class ExportedNetwork:
    """The content of a folder that ``python -m bevdepth_core.export`` wrote.

    Attributes:
        folder: folder with the graphs and the manifest.
        manifest: content of ``manifest.json``.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> ExportedNetwork:
        """Read an exported network, and compare the SHA-256 of its graphs with the manifest.

        Raises:
            ExportError: a file is missing, invalid or damaged.
        """
        path = Path(folder) / MANIFEST
        try:
            manifest = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ExportError(f'{path}: cannot be read ({error}); {WRITE_AGAIN}') from error
        if not isinstance(manifest, dict) or manifest.get('format') not in FORMATS.values():
            formats = ' or '.join(FORMATS.values())
            raise ExportError(f'{path}: not of the format {formats}; {WRITE_AGAIN}')
        exported = cls(Path(folder), manifest)
        try:
            exported._verify()
        except (KeyError, TypeError) as error:
            raise ExportError(f'{path}: incomplete ({error!r}); {WRITE_AGAIN}') from error
        return exported

    def _verify(self) -> None:
        """Raise KeyError or TypeError for an invalid manifest, ExportError for a damaged file."""
        for entry in ('pooling', 'config'):
            self.manifest[entry]
        self.manifest['weights']['sha256']
        for name in GRAPHS:
            path, digest = self.graph(name), self.manifest['graphs'][name]['sha256']
            if not path.is_file() or file_digest(path) != digest:
                raise ExportError(f'{path}: missing or damaged; {WRITE_AGAIN}')

    def graph(self, name: str) -> Path:
        """Return the file of a graph: ``image_branch``, ``splat`` or ``detection``."""
        return self.folder / self.manifest['graphs'][name]['file']

    @property
    def format(self) -> str:
        """The key of ``FORMATS`` for the format in the manifest: ``onnx`` or ``pt2``."""
        return next(name for name, text in FORMATS.items() if text == self.manifest['format'])

    @property
    def has_own_node(self) -> bool:
        """True if the splat graph contains the node ``bevdepth.VoxelPooling``."""
        return bool(self.manifest['pooling'] == 'custom')

    @property
    def has_scatter(self) -> bool:
        """True if the splat graph computes sums with ScatterND."""
        return bool(self.manifest['pooling'] == 'scatter')

    def require(self, model: BEVDepth) -> None:
        """Raise ExportError unless the graphs were exported from the weights and the config of
        ``model``.
        """
        same_config = self.manifest['config'] == plain_config(model)
        if not same_config or self.manifest['weights']['sha256'] != weights_digest(model):
            raise ExportError(
                f'{self.folder}: exported from other weights than the checkpoint contains, or '
                f'with another config; {WRITE_AGAIN}'
            )


def plain_config(model: BEVDepth) -> Any:
    """Return the config of ``model`` as JSON stores it."""
    return json.loads(json.dumps(model_config_to_dict(model.config)))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_digest(model: BEVDepth) -> str:
    """Return the SHA-256 of the names and values of all weights. The hash does not depend on the
    file format.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
