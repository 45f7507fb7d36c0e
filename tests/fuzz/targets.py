"""The fuzzing targets. A target prepares valid input and returns a function. Each call of this
function is an execution. An execution damages the input, passes it to the code under test, and
checks the result.

An execution returns whether the code under test accepted the damaged input. Every exception that
an execution raises is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz import bag_targets, file_targets, message_targets

Execute = Callable[[Random], bool]

TARGETS: dict[str, Callable[[Path], Execute]] = {
    'raw_image': message_targets.raw_image,
    'compressed_image': message_targets.compressed_image,
    'camera_info': message_targets.camera_info,
    'tf': message_targets.tf,
    'serialized': message_targets.serialized,
    'parameters': message_targets.parameters,
    'calibration_file': file_targets.calibration_file,
    'model_config': file_targets.model_config,
    'own_checkpoint': file_targets.own_checkpoint,
    'official_checkpoint': file_targets.official_checkpoint,
    'image_file': file_targets.image_file,
    'dataset': file_targets.dataset,
    'bag_mcap': bag_targets.mcap,
    'bag_mcap_remains': bag_targets.mcap_remains,
    'bag_sqlite': bag_targets.sqlite,
    'bag_metadata': bag_targets.metadata,
}
"""Maps names to targets. The argument of a target is the folder in which the target writes
files."""
