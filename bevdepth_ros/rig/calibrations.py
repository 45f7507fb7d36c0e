"""Stores the newest calibration of each camera, from CameraInfo or from files."""

from __future__ import annotations

from collections.abc import Callable

from sensor_msgs.msg import CameraInfo

from bevdepth_ros.rig.conversions import info_from_file
from bevdepth_ros.rig.intrinsics import Intrinsics, intrinsics_from_info
from bevdepth_ros.rig.settings import CameraSource, RigSettings


class Calibrations:
    """Stores the calibration of each camera. ``take_info`` may be called by another thread."""

    def __init__(self, settings: RigSettings, topic_name: Callable[[str], str] = str) -> None:
        """Read the calibration files.

        Args:
            settings: topics and files of the cameras.
            topic_name: see ``FrameBuilder``.

        Raises:
            ValueError: a calibration file is invalid.
            OSError: a calibration file cannot be read.
        """
        self._topic_name = topic_name
        self._infos = {
            source.name: info_from_file(source.info_file)
            for source in settings.camera_sources
            if source.info_file
        }
        for info in self._infos.values():
            intrinsics_from_info(info, settings.images_rectified)
        self._files = frozenset(self._infos)
        self._known: dict[str, tuple[CameraInfo, bool, Intrinsics]] = {}

    def take_info(self, camera: str, message: CameraInfo) -> None:
        """Use this CameraInfo of ``camera`` from now on. If a calibration file of the camera is
        given, do nothing.
        """
        if camera not in self._files:
            self._infos[camera] = message

    def has(self, camera: str) -> bool:
        """Return True if CameraInfo of ``camera`` was received, or a calibration file of the
        camera is given.
        """
        return camera in self._infos

    def intrinsics(self, source: CameraSource, rectified: bool) -> Intrinsics:
        """Return the intrinsics of the newest CameraInfo. They are computed once per message.

        Raises:
            ValueError: the camera has no CameraInfo, or its CameraInfo is invalid. The message
                begins with a verb, because the caller writes the camera's name before it.
        """
        info = self._infos.get(source.name)
        if info is None:
            topic = self._topic_name(source.info_topic)
            remedy = 'publish CameraInfo there, or set camera_info_topics or camera_info_files'
            raise ValueError(f'has no CameraInfo: no message was received on {topic}; {remedy}')
        known = self._known.get(source.name)
        if known is None or known[0] is not info or known[1] != rectified:
            known = info, rectified, intrinsics_from_info(info, rectified)
            self._known[source.name] = known
        return known[2]
