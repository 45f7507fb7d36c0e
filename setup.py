"""The ament_python package: two Python packages, shared files, console scripts and the CUDA module
of ``csrc``.

The CUDA module is one call of nvcc; it links the static CUDA runtime and nothing of libtorch, so
one build serves every torch.

Environment:
    BEVDEPTH_CUDA: ``auto`` (default) builds it where nvcc is found and goes on without it when
        that fails; ``1`` insists; ``0`` never.
    BEVDEPTH_CUDA_ARCHS: GPU generations to build for, default ``75 80 86 87 89 90``; newer ones
        run the last one's PTX.
    CUDA_HOME: CUDA toolkit to use when nvcc is not on PATH.
"""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError

NAME = 'bevdepth_ros'
CUDA_MODULE = 'bevdepth_core.ops._kernels'
CUDA_SOURCES = [
    'csrc/bindings.cpp',
    'csrc/detection/detection_bindings.cpp',
    'csrc/detection/detection.cu',
    'csrc/layers/layers.cu',
    'csrc/layers/layers_bindings.cpp',
    'csrc/voxel_pooling/voxel_pooling.cu',
]


def find_nvcc():
    """Return the path of nvcc on PATH or under CUDA_HOME, None where there is none."""
    home = os.environ.get('CUDA_HOME')
    return shutil.which('nvcc') or (shutil.which('nvcc', path=f'{home}/bin') if home else None)


def cuda_extensions():
    """Return what BEVDEPTH_CUDA asks to be built: the CUDA module, allowed to fail under ``auto``,
    or nothing.
    """
    wish = os.environ.get('BEVDEPTH_CUDA') or 'auto'
    if wish not in ('auto', '1', '0'):
        raise SetupError(f'BEVDEPTH_CUDA must be auto, 1 or 0, got {wish!r}')
    if wish == '0' or (wish == 'auto' and find_nvcc() is None):
        return []
    return [Extension(CUDA_MODULE, CUDA_SOURCES, optional=wish == 'auto')]


def architecture_flags():
    """Return nvcc's flags for machine code of every generation asked for and PTX of the last."""
    archs = os.environ.get('BEVDEPTH_CUDA_ARCHS', '75 80 86 87 89 90').split()
    flags = [f'-gencode=arch=compute_{arch},code=sm_{arch}' for arch in archs]
    return [*flags, f'-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}']


class BuildCudaModule(build_ext):
    """Builds an extension with a single nvcc command."""

    def build_extension(self, ext):
        """Compile and link ``ext``.

        Raises:
            CompileError: nvcc is missing or fails; setuptools turns it into a warning for an
                optional extension.
        """
        nvcc = find_nvcc()
        if nvcc is None:
            raise CompileError(
                'BEVDEPTH_CUDA=1 needs nvcc: put it on PATH, set CUDA_HOME, or set '
                'BEVDEPTH_CUDA=0 to do without'
            )
        import pybind11

        includes = [
            '-Icsrc',
            f'-I{sysconfig.get_paths()["include"]}',
            f'-I{pybind11.get_include()}',
        ]
        flags = [
            '-O3',
            '-std=c++17',
            '--threads=0',
            '-shared',
            '-cudart=static',
            '-Xcompiler=-fPIC,-fvisibility=hidden',
        ]
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        command = [nvcc, *flags, *architecture_flags(), *includes, *ext.sources, '-o', str(output)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(
                f'{ext.name} was not built: {error}; BEVDEPTH_CUDA=0 does without it'
            ) from error


def shared_files(*folders):
    """Return setup()'s data_files entries that put ``folders`` as they are under
    share/bevdepth_ros.
    """
    files = [
        path
        for folder in folders
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file() and '__pycache__' not in path.parts
    ]
    return [(f'share/{NAME}/{path.parent}', [str(path)]) for path in files]


setup(
    name=NAME,
    version='0.1.0',
    description='BEVDepth camera-only 3D object detection as a ROS 2 node with its PyTorch core.',
    license='Apache-2.0',
    maintainer='BEVDepth ROS maintainers',
    maintainer_email='maintainers@bevdepth-ros.example',
    python_requires='>=3.10',
    packages=find_packages(include=['bevdepth_core*', 'bevdepth_ros*']),
    package_data={'bevdepth_core': ['py.typed', 'weights/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared_files('launch', 'config'),
    ],
    install_requires=['setuptools'],
    zip_safe=False,
    ext_modules=cuda_extensions(),
    cmdclass={'build_ext': BuildCudaModule},
    entry_points={
        'console_scripts': [
            'detector = bevdepth_ros.detector.__main__:main',
            'player = bevdepth_ros.bags.player:main',
            'recorder = bevdepth_ros.bags.recorder:main',
            'nuscenes_to_bag = bevdepth_ros.bags.nuscenes_to_bag:main',
            'visualizer = bevdepth_ros.rendering.visualizer:main',
            'viewer = bevdepth_ros.viewer.node:main',
            'render = bevdepth_ros.rendering.render:main',
            'evaluate_node = bevdepth_ros.closed_loop.evaluate_node:main',
            'demo = bevdepth_ros.demo:main',
        ],
    },
)
