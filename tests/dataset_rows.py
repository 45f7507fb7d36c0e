"""Rows and files that the small nuScenes-format datasets of the tests have in common."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

MAP_FILE = 'maps/synthetic.png'


def fixed_rows() -> dict[str, list[dict]]:
    """Return the tables visibility, log and map."""
    return {
        'visibility': [{'token': '4', 'level': 'v80-100', 'description': ''}],
        'log': [
            {
                'token': 'log',
                'logfile': 'synthetic',
                'vehicle': 'synthetic',
                'date_captured': '2018-07-18',
                'location': 'synthetic',
            }
        ],
        'map': [
            {
                'token': 'map',
                'log_tokens': ['log'],
                'category': 'semantic_prior',
                'filename': MAP_FILE,
            }
        ],
    }


def sensor_row(channel: str, is_camera: bool) -> dict[str, str]:
    """Return the row of a sensor in the table ``sensor``."""
    modality = 'camera' if is_camera else 'lidar'
    return {'token': f'sensor-{channel}', 'channel': channel, 'modality': modality}


def write_map(root: Path) -> None:
    """Write the image of the map, which the devkit requires."""
    (root / 'maps').mkdir(parents=True)
    Image.new('L', (10, 10)).save(root / MAP_FILE)


def write_tables(folder: Path, tables: dict) -> None:
    """Write each table as a JSON file."""
    folder.mkdir(parents=True)
    for name, records in tables.items():
        (folder / f'{name}.json').write_text(json.dumps(records))
