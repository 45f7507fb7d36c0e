"""Starts two detectors, for example one for front and one for rear cameras, each with its own
camera preset.
"""

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration


def _detector(namespace: str) -> GroupAction:
    share = get_package_share_directory('bevdepth_ros')
    arguments = {
        'namespace': namespace,
        'camera_preset': LaunchConfiguration(f'{namespace}_cameras'),
        'checkpoint': 'small',
    }
    source = PythonLaunchDescriptionSource(f'{share}/launch/detect.launch.py')
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())])


def generate_launch_description() -> LaunchDescription:
    """Return the description that launches /front/bevdepth_detector and
    /rear/bevdepth_detector.
    """
    names = ('front', 'rear')
    arguments = [
        DeclareLaunchArgument(
            f'{name}_cameras',
            default_value='nuscenes',
            description=f'Camera preset of the detector /{name}/bevdepth_detector.',
        )
        for name in names
    ]
    return LaunchDescription([*arguments, *map(_detector, names)])
