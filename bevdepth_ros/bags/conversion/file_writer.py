"""Second pass through a bag: writes the images and points that a plan needs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bevdepth_core.files import write_atomically
from bevdepth_ros.bags.conversion.plan import Measurement, Plan
from bevdepth_ros.bags.conversion.rows import filename
from bevdepth_ros.bags.conversion.scan import Scan, read_header
from bevdepth_ros.bags.conversion.sensor_files import write_image, write_points
from bevdepth_ros.bags.conversion.sensors import Sensor
from bevdepth_ros.bags.conversion.sources import COMPRESSED
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.rig.undistortion import Undistorter


class FileWriter:
    """Writes the measurements of one bag.

    Args:
        root: folder of the dataset.
        name: name of the bag; the name of each written file begins with the name of the bag.
        bag: the recording.
        scan: scan of this bag; a note is added for each message that is left out.
        sensors: sensors by topic.
    """

    def __init__(
        self, root: Path, name: str, bag: Bag, scan: Scan, sensors: Mapping[str, Sensor]
    ) -> None:
        self._root, self._name, self._bag = root, name, bag
        self._scan, self._sensors = scan, sensors
        self._undistort = Undistorter()

    def write(self, plan: Plan) -> dict[Measurement, str]:
        """Write the measurements of a plan; keep files that an interrupted run has written.

        Returns:
            For each valid measurement, the path of its file relative to the root of the dataset.
        """
        wanted = plan.measurements()
        files: dict[Measurement, str] = {}
        with tqdm(
            total=len(wanted), desc=f'writing {self._name}', unit='file', disable=None
        ) as bar:
            for topic, _, data in self._bag.messages(self._sensors):
                measurement = _measurement(topic, data)
                if measurement not in wanted or measurement in files:
                    continue
                place = self._place(measurement, plan)
                if self._ensure_written(topic, data, self._root / place):
                    files[measurement] = str(place)
                    bar.update()
        return files

    def _place(self, measurement: Measurement, plan: Plan) -> Path:
        topic, stamp_ns = measurement
        is_key_frame = measurement not in plan.sweeps
        return filename(self._name, self._sensors[topic], stamp_ns, is_key_frame)

    def _ensure_written(self, topic: str, data: bytes, path: Path) -> bool:
        if path.exists():
            return True
        try:
            write_atomically(path, partial(self._write, topic, data))
        except (ValueError, RuntimeError) as error:
            channel = self._sensors[topic].channel
            self._scan.notes.append(f'a message of {channel} is left out: it {error}')
            return False
        return True

    def _write(self, topic: str, data: bytes, path: str) -> None:
        sensor = self._sensors[topic]
        if sensor.modality == 'lidar':
            write_points(Path(path), data)
            return
        is_compressed = self._bag.topics[topic].message_type == COMPRESSED
        intrinsics = self._scan.intrinsics[topic]
        write_image(Path(path), sensor.channel, data, is_compressed, intrinsics, self._undistort)


def _measurement(topic: str, data: bytes) -> Measurement | None:
    try:
        return topic, read_header(data)[0]
    except ValueError:
        return None  # the scan has already counted this damaged message
