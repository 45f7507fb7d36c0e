"""Reads the points of a PointCloud2 of any layout."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

_KINDS = {
    PointField.INT8: 'i1', PointField.UINT8: 'u1', PointField.INT16: 'i2',
    PointField.UINT16: 'u2', PointField.INT32: 'i4', PointField.UINT32: 'u4',
    PointField.FLOAT32: 'f4', PointField.FLOAT64: 'f8',
}  # fmt: skip
_OPTIONAL = (('intensity', 'i', 'reflectivity'), ('ring', 'channel', 'line'))
"""Names of the fields for the fourth column (intensity) and for the fifth column (ring). Lidar
drivers use different names."""


def cloud_columns(message: PointCloud2) -> np.ndarray:
    """Return (n, 5) float64 x y z in meters, intensity and ring.

    Intensity or ring is 0 if the cloud has no such field. Points with an infinite or NaN
    coordinate are left out. Points at the origin are left out, too, because drivers write them for
    rays without a return.

    Raises:
        ValueError: the cloud is damaged, or has no x, y and z. The text of the error is a clause
            without subject, such as "is damaged".
    """
    names = [field.name for field in message.fields]
    if not {'x', 'y', 'z'} <= set(names):
        raise ValueError(f'has the fields {names}, but not x, y and z')
    points = _points(message)
    columns = [points[name].astype(np.float64) for name in 'xyz']
    for choices in _OPTIONAL:
        name = next((name for name in choices if name in names), None)
        column = np.zeros(len(points)) if name is None else points[name].astype(np.float64)
        columns.append(np.nan_to_num(column, posinf=0, neginf=0))
    stacked = np.column_stack(columns)
    position = stacked[:, :3]
    return stacked[np.isfinite(position).all(axis=1) & position.any(axis=1)]


def _points(message: PointCloud2) -> np.ndarray:
    """Return the points as a flat structured array, without the padding of rows."""
    order = '>' if message.is_bigendian else '<'
    wanted = {'x', 'y', 'z', *(name for choices in _OPTIONAL for name in choices)}
    fields = {field.name: field for field in message.fields if field.name in wanted}
    row_step = max(message.row_step, message.width * message.point_step)
    try:
        layout = np.dtype({
            'names': list(fields),
            'formats': [order + _KINDS[field.datatype] for field in fields.values()],
            'offsets': [field.offset for field in fields.values()],
            'itemsize': message.point_step,
        })  # fmt: skip
        shape, steps = (message.height, message.width), (row_step, message.point_step)
        return np.ndarray(shape, layout, bytes(message.data), 0, steps).ravel()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'is damaged: its layout does not fit its data ({error})') from error
