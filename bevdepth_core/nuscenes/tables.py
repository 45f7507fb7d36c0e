"""Opens the nuScenes devkit without the tables that this package does not read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from bevdepth_core.nuscenes.completeness import (
    OPTIONAL_TABLES,
    damaged_tables,
    require_tables,
)

if TYPE_CHECKING:
    from nuscenes import NuScenes  # only for types, because this import takes seconds

_NEVER_READ = ('log', 'map')


@functools.cache
def _devkit_class() -> type[NuScenes]:
    """Return a subclass of the devkit's class ``NuScenes`` that also loads datasets without the
    optional tables. The devkit is imported in this function, because the import takes seconds.
    """
    from nuscenes import NuScenes

    class Tables(NuScenes):
        """The devkit without logs and maps. Optional tables that are absent are empty.

        The devkit itself needs a map image for every log, but datasets other than nuScenes have no
        map images.
        """

        def __load_table__(self, table_name: str) -> list[dict]:
            absent = not (Path(self.table_root) / f'{table_name}.json').is_file()
            if table_name in _NEVER_READ or (absent and table_name in OPTIONAL_TABLES):
                return []
            return super().__load_table__(table_name)

        def __make_reverse_index__(self, verbose: bool) -> None:
            self.map = [{'token': '', 'log_tokens': []}]  # the devkit reads the first record
            super().__make_reverse_index__(verbose)

    return Tables


def open_devkit(dataroot: str | Path, version: str) -> NuScenes:
    """Load the dataset with the devkit, without logs and maps. Nothing is printed.

    Raises:
        DatasetIncompleteError: a table is missing or damaged, or tables contradict each other.
    """
    require_tables(Path(dataroot), version)
    devkit_class = _devkit_class()
    try:
        return devkit_class(version, str(dataroot), verbose=False)
    except Exception as error:  # the devkit raises many types, also plain Exception
        raise damaged_tables(Path(dataroot) / version, error) from error
