"""Reads point clouds with the different layouts that drivers publish."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField

from bevdepth_ros.bags.conversion.clouds import cloud_columns

KINDS = {'u1': PointField.UINT8, 'u2': PointField.UINT16, 'f4': 7, 'f8': PointField.FLOAT64}


def cloud(points: np.ndarray, row_padding: int = 0, is_bigendian: bool = False) -> PointCloud2:
    """Return a message with the points of a (height, width) structured array. Each row ends with
    ``row_padding`` unused bytes."""
    fields = [
        PointField(name=name, offset=layout[1], datatype=KINDS[layout[0].str[1:]], count=1)
        for name, layout in points.dtype.fields.items()
    ]
    height, width = points.shape
    data = b''.join(row.tobytes() + b'\xff' * row_padding for row in points)
    return PointCloud2(
        height=height, width=width, fields=fields, point_step=points.itemsize,
        row_step=width * points.itemsize + row_padding, data=data, is_bigendian=is_bigendian,
    )  # fmt: skip


ROWS = [[(7, 3.0, 2.0, 1.0), (8, 6.0, 5.0, 4.0)], [(9, 9.0, 8.0, 7.0), (1, 12.0, 11.0, 10.0)]]
EXPECTED = [[1, 2, 3, 0, 7], [4, 5, 6, 0, 8], [7, 8, 9, 0, 9], [10, 11, 12, 0, 1]]


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('kind', ['f4', 'f8'])
@pytest.mark.parametrize('row_padding', [0, 13])
@pytest.mark.parametrize('is_aligned', [False, True])
def test_the_points_do_not_depend_on_byte_order_number_type_and_padding(
    order: str, kind: str, row_padding: int, is_aligned: bool
) -> None:
    layout = [('ring', f'{order}u2'), *((axis, order + kind) for axis in 'zyx')]
    points = np.array(ROWS, np.dtype(layout, align=is_aligned))
    message = cloud(points, row_padding, is_bigendian=order == '>')
    assert cloud_columns(message).tolist() == EXPECTED


@pytest.mark.parametrize('name', ['intensity', 'i', 'reflectivity'])
def test_the_intensity_field_may_have_each_name_that_drivers_use(name: str) -> None:
    layout = np.dtype([*((axis, '<f4') for axis in 'xyz'), (name, '<u1'), ('line', '<u1')])
    points = np.array([[(1, 2, 3, 200, 5)]], layout)
    assert cloud_columns(cloud(points)).tolist() == [[1, 2, 3, 200, 5]]


def test_points_at_the_origin_or_not_finite_are_left_out_and_nan_intensity_becomes_0() -> None:
    nan, inf = np.nan, np.inf
    layout = np.dtype([(name, '<f4') for name in ('x', 'y', 'z', 'intensity')])
    rows = [(nan, 1, 1, 1), (1, inf, 1, 1), (1, 1, -inf, 1), (0, 0, 0, 1), (0, 0, 2, nan)]
    assert cloud_columns(cloud(np.array([rows], layout))).tolist() == [[0, 0, 2, 0, 0]]


def test_a_cloud_that_does_not_fit_its_layout_is_rejected() -> None:
    layout = np.dtype([(name, '<f4') for name in 'xyz'])
    message = cloud(np.zeros((1, 4), layout))
    message.width = 5
    with pytest.raises(ValueError, match='is damaged: its layout does not fit its data'):
        cloud_columns(message)
    message.width, message.point_step = 4, 8
    with pytest.raises(ValueError, match='is damaged'):
        cloud_columns(message)
    message.fields = message.fields[:2]
    with pytest.raises(ValueError, match=r"has the fields \['x', 'y'\], but not x, y and z"):
        cloud_columns(message)


def test_an_empty_cloud_has_no_points() -> None:
    layout = np.dtype([(name, '<f4') for name in 'xyz'])
    assert cloud_columns(cloud(np.zeros((1, 0), layout))).shape == (0, 5)
