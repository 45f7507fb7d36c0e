"""Includes the detector in the launch file of a robot, in the namespace of the robot."""

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import PushRosNamespace


def generate_launch_description() -> LaunchDescription:
    """Return the description that launches the detector of one robot. The group separates the
    launch arguments of the detector from the arguments of other included launch files.
    """
    share = get_package_share_directory('bevdepth_ros')
    detector = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(f'{share}/launch/detect.launch.py'),
        launch_arguments={'checkpoint': LaunchConfiguration('checkpoint')}.items(),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument('robot', default_value='robot'),
            DeclareLaunchArgument('checkpoint', default_value='small'),
            GroupAction([PushRosNamespace(LaunchConfiguration('robot')), detector]),
        ]
    )
