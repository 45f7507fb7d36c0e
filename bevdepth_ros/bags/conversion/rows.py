"""Creates the rows of the nuScenes tables for the scenes of a bag."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from vision_msgs.msg import Detection3D

from bevdepth_core.geometry import rigid_from_quaternion
from bevdepth_core.nuscenes.columns import UNKNOWN_POINTS
from bevdepth_core.nuscenes.table_files import Rows, linked, pose_fields, token
from bevdepth_ros.bags.conversion.plan import KeyFrame, Measurement
from bevdepth_ros.bags.conversion.scan import Scan
from bevdepth_ros.bags.conversion.sensors import Frames, Sensor
from bevdepth_ros.rig.transforms import TransformMissingError


@dataclass(frozen=True)
class SceneRows:
    """Creates the rows of one scene.

    Attributes:
        name: name of the scene.
        scan: scan of the bag that contains the scene.
        frames: names of the tf frames.
        sensors: sensors by topic.
        files: for each measurement, the path of its file relative to the root of the dataset.
        min_score: annotations with a lower score are left out.
        left_out: for each reason, the number of annotations that are left out; ``rows`` increases
            these numbers.
    """

    name: str
    scan: Scan
    frames: Frames
    sensors: Mapping[str, Sensor]
    files: Mapping[Measurement, str]
    min_score: float
    left_out: Counter[str]

    def rows(self, key_frames: Sequence[KeyFrame], sweeps: Sequence[Measurement]) -> Rows:
        """Return the rows of this scene.

        Args:
            key_frames: key frames of this scene in order of time.
            sweeps: measurements of this scene that are in no key frame.
        """
        samples = linked([
            {
                'token': self._token('sample', frame.stamp_ns),
                'timestamp': frame.stamp_ns // 1000,
                'scene_token': self._token('scene'),
            }
            for frame in key_frames
        ])  # fmt: skip
        scene = {
            'token': self._token('scene'), 'log_token': self._token('log'),
            'nbr_samples': len(samples), 'first_sample_token': samples[0]['token'],
            'last_sample_token': samples[-1]['token'], 'name': self.name, 'description': '',
        }  # fmt: skip
        log = {'token': self._token('log'), 'logfile': self.name, 'vehicle': '', 'location': ''}
        return {
            'scene': [scene],
            'log': [log | {'date_captured': ''}],
            'sample': samples,
            'calibrated_sensor': [self._calibration_row(s) for s in self.sensors.values()],
            **self._data_rows(key_frames, sweeps),
            **self._annotation_rows(key_frames),
        }

    def _token(self, *parts: object) -> str:
        return token(self.name, *parts)

    def _calibration_row(self, sensor: Sensor) -> dict:
        return {
            'token': self._token('calibrated_sensor', sensor.channel),
            'sensor_token': token('sensor', sensor.channel),
            **pose_fields(sensor.base_from_sensor),
            'camera_intrinsic': sensor.intrinsics,
        }

    def _data_rows(self, key_frames: Sequence[KeyFrame], sweeps: Sequence[Measurement]) -> Rows:
        times = np.array([frame.stamp_ns for frame in key_frames], np.int64)
        keys = [
            (measurement, frame.stamp_ns, True)
            for frame in key_frames
            for measurement in frame.measurements.items()
        ]
        following = [
            times[min(int(np.searchsorted(times, stamp)), len(times) - 1)] for _, stamp in sweeps
        ]
        others = [
            (measurement, int(time), False)
            for measurement, time in zip(sweeps, following, strict=True)
        ]
        ordered = sorted((*keys, *others))  # by topic, then by time
        groups = itertools.groupby(ordered, key=lambda item: item[0][0])
        data = [linked([self._data_row(*item) for item in group]) for _, group in groups]
        poses = [self._pose_row(topic, stamp_ns) for (topic, stamp_ns), _, _ in ordered]
        return {'sample_data': list(itertools.chain.from_iterable(data)), 'ego_pose': poses}

    def _data_row(self, measurement: Measurement, sample_ns: int, is_key_frame: bool) -> dict:
        topic, stamp_ns = measurement
        sensor = self.sensors[topic]
        return {
            'token': self._token('sample_data', sensor.channel, stamp_ns),
            'sample_token': self._token('sample', sample_ns),
            'ego_pose_token': self._token('ego_pose', sensor.channel, stamp_ns),
            'calibrated_sensor_token': self._token('calibrated_sensor', sensor.channel),
            'timestamp': stamp_ns // 1000,
            'fileformat': 'jpg' if sensor.modality == 'camera' else 'pcd',
            'is_key_frame': is_key_frame,
            'height': sensor.size[1],
            'width': sensor.size[0],
            'filename': self.files[measurement],
        }

    def _pose_row(self, topic: str, stamp_ns: int) -> dict:
        pose = self.scan.transforms.lookup_at(self.frames.world, self.frames.base, stamp_ns)
        return {
            'token': self._token('ego_pose', self.sensors[topic].channel, stamp_ns),
            'timestamp': stamp_ns // 1000,
            **pose_fields(pose),
        }

    def _annotation_rows(self, key_frames: Sequence[KeyFrame]) -> Rows:
        objects: dict[tuple, list[dict]] = defaultdict(list)
        for frame in key_frames:
            for key, row in self._boxes(frame.stamp_ns):
                objects[key].append(row | {'instance_token': self._token('instance', *key)})
        instances, annotations = [], []
        for key, rows in objects.items():
            annotations += linked(rows)
            instances.append({
                'token': self._token('instance', *key),
                'category_token': token('category', key[0]),
                'nbr_annotations': len(rows),
                'first_annotation_token': rows[0]['token'],
                'last_annotation_token': rows[-1]['token'],
            })  # fmt: skip
        return {'instance': instances, 'sample_annotation': annotations}

    def _boxes(self, stamp_ns: int) -> Iterator[tuple[tuple, dict]]:
        """Yield the key and the row of each valid box with the stamp ``stamp_ns``. The key
        consists of the class, the id, and a number that distinguishes boxes of the same class and
        id.
        """
        message = self.scan.annotations.get(stamp_ns)
        occurrences = Counter[tuple]()
        if message is None:
            return
        for number, detection in enumerate(message.detections):
            frame_id = detection.header.frame_id or message.header.frame_id
            box = self._box(detection, frame_id, stamp_ns)
            if box is None:
                continue
            class_name, fields = box
            name = detection.id or f'{stamp_ns}-{number}'
            occurrences[class_name, name] += 1
            fields |= {
                'token': self._token('annotation', stamp_ns, number),
                'sample_token': self._token('sample', stamp_ns),
            }
            yield (class_name, name, occurrences[class_name, name]), fields

    def _box(
        self, detection: Detection3D, frame_id: str, stamp_ns: int
    ) -> tuple[str, dict] | None:
        """Return class name and fields of a box; None if the box is left out."""
        best = max(
            (result.hypothesis for result in detection.results),
            key=lambda hypothesis: hypothesis.score,
            default=None,
        )
        if best is None or not best.class_id:
            self.left_out['no class'] += 1
            return None
        if not best.score >= self.min_score:
            self.left_out[f'score below {self.min_score:g}'] += 1
            return None
        size = detection.bbox.size
        extents = np.array((size.y, size.x, size.z))
        try:
            pose = self._world_pose(detection, frame_id, stamp_ns)
        except (ValueError, TransformMissingError) as error:
            self.left_out[str(error)] += 1
            return None
        if not (np.isfinite(pose).all() and np.isfinite(extents).all() and (extents > 0).all()):
            self.left_out['invalid position or size'] += 1
            return None
        return best.class_id, {
            'visibility_token': '',
            'attribute_tokens': [],
            **pose_fields(pose),
            'size': extents.tolist(),
            'num_lidar_pts': UNKNOWN_POINTS,
            'num_radar_pts': 0,
            'score': min(best.score, 1.0) or 1.0,  # 0 means that the publisher set no score
        }

    def _world_pose(self, detection: Detection3D, frame_id: str, stamp_ns: int) -> np.ndarray:
        center = detection.bbox.center
        turn, place = center.orientation, center.position
        box = rigid_from_quaternion((turn.w, turn.x, turn.y, turn.z), (place.x, place.y, place.z))
        return self.scan.transforms.lookup_at(self.frames.world, frame_id, stamp_ns) @ box


def shared_rows(sensors: Sequence[Sensor], categories: Sequence[str]) -> Rows:
    """Return the rows that all scenes of a dataset share."""
    return {
        'sensor': [
            {
                'token': token('sensor', sensor.channel),
                'channel': sensor.channel,
                'modality': sensor.modality,
            }
            for sensor in sensors
        ],
        'category': [
            {'token': token('category', name), 'name': name, 'description': ''}
            for name in categories
        ],
    }


def filename(bag: str, sensor: Sensor, stamp_ns: int, is_key_frame: bool) -> Path:
    """Return the path of the file of a measurement, relative to the root of the dataset. The name
    of the file has the format of nuScenes.
    """
    ending = 'jpg' if sensor.modality == 'camera' else 'pcd.bin'
    name = f'{bag}__{sensor.channel}__{stamp_ns // 1000}.{ending}'
    return Path('samples' if is_key_frame else 'sweeps') / sensor.channel / name
