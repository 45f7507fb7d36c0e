"""An import of the network does not import the compiler of PyTorch, because the compiler would
double the start-up time of the node. The compiler works when it is used later.
"""

from __future__ import annotations

import subprocess
import sys

from tests.reference import ROOT

PROGRAM = """
import sys
import torch
from bevdepth_core.inference import Detector
Detector.from_checkpoint('small')
assert 'torch._dynamo' not in sys.modules
from torchvision.ops import roi_align
box = torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0]])
assert roi_align(torch.ones(1, 1, 4, 4), box, 1).item() == 1.0
assert torch.compile(torch.sin, backend='eager')(torch.zeros(1)).item() == 0.0
assert 'torch._dynamo' in sys.modules
"""


def test_loading_the_network_does_not_import_the_compiler_and_the_compiler_works_later() -> None:
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
