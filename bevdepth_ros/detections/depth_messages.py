"""Converts the predicted depth to a colored point cloud message."""

from __future__ import annotations

import array

import numpy as np
import torch
from sensor_msgs.msg import PointCloud2, PointField

from bevdepth_core.config import ModelConfig
from bevdepth_core.types import Frame
from bevdepth_core.visualization import DepthMaps, depth_points, likely_depth
from bevdepth_ros.detections.messages import header

_FIELDS = ('x', 'y', 'z', 'rgb')
_POINT = np.dtype([(name, '<u4' if name == 'rgb' else '<f4') for name in _FIELDS])


def depth_cloud(
    frame: Frame, distribution: torch.Tensor, config: ModelConfig, frame_id: str
) -> PointCloud2:
    """Return a point cloud with one point per cell of the cameras' feature maps. The point is at
    the most likely depth of the cell, and has the color of the image at this cell.

    Args:
        frame: the images of N cameras.
        distribution: (N, D, h, w) depth distribution of the same cameras.
        config: config of the network.
        frame_id: name of the base frame. The extrinsics of ``frame`` refer to this tf frame.
    """
    maps = DepthMaps(
        likely_depth(distribution, config.depth_bins), config.depth_bins, config.image
    )
    positions, colors = depth_points(frame, maps)
    points = np.zeros(len(positions), _POINT)
    points['x'], points['y'], points['z'] = positions.T
    red, green, blue = colors.T.astype(np.uint32)
    points['rgb'] = red << 16 | green << 8 | blue
    # PCL, RViz and Foxglove expect the three color bytes in a field that is declared as float.
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(_FIELDS)
    ]
    return PointCloud2(
        header=header(frame.stamp_ns, frame_id), height=1, width=len(points), fields=fields,
        is_bigendian=False,
        point_step=_POINT.itemsize, row_step=points.nbytes, is_dense=True, data=array.array('B',
        points.tobytes()),
    )  # fmt: skip
