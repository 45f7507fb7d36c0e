"""Builds the ament_python package: two Python packages, shared files, console scripts, and the
CUDA module from ``csrc``.

One call of nvcc builds the CUDA module. The module is linked with the static CUDA runtime and not
with libtorch, so that one build works with every version of torch.

Environment:
    BEVDEPTH_CUDA
        ``auto`` (default): build the CUDA module if nvcc is found; if the build fails, continue
        without the module. ``1``: fail if the module cannot be built. ``0``: do not build it.
    BEVDEPTH_CUDA_ARCHS
        GPU generations to build for, such as ``80 90``. Newer GPUs run the PTX code of the last
        generation in this list. Default: the generations of this machine's GPUs, or
        ``75 80 90`` if nvidia-smi finds no GPU. Code for 80 also runs on 86, 87 and 89.
    CUDA_HOME
        folder of the CUDA toolkit; it is used only if nvcc is not on PATH.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError

PACKAGE = ElementTree.parse('package.xml').getroot()
NAME = PACKAGE.findtext('name')
PORTABLE_ARCHS = ['75', '80', '90']
CUDA_MODULE = 'bevdepth_core.ops._kernels'
CUDA_SOURCES = [
    'csrc/bindings.cpp',
    'csrc/detection/detection_bindings.cpp',
    'csrc/detection/detection.cu',
    'csrc/layers/layers.cu',
    'csrc/layers/layers_bindings.cpp',
    'csrc/stereo/stereo.cu',
    'csrc/stereo/stereo_bindings.cpp',
    'csrc/voxel_pooling/voxel_pooling.cu',
]


def find_nvcc():
    """Return the path of nvcc on PATH or under CUDA_HOME, None if there is none."""
    home = os.environ.get('CUDA_HOME')
    return shutil.which('nvcc') or (shutil.which('nvcc', path=f'{home}/bin') if home else None)


def report(text):
    """Print to stderr, because colcon shows only stderr."""
    print(f'{NAME}: {text}', file=sys.stderr, flush=True)


def cuda_extensions():
    """Return the extensions to build: the CUDA module, or none, as BEVDEPTH_CUDA requests. With
    ``auto``, setuptools continues if the build of the module fails.
    """
    setting = os.environ.get('BEVDEPTH_CUDA') or 'auto'
    if setting not in ('auto', '1', '0'):
        raise SetupError(f'BEVDEPTH_CUDA must be auto, 1 or 0, got {setting!r}')
    if setting == '0':
        return []
    if setting == 'auto' and find_nvcc() is None:
        if {'build', 'build_ext', 'develop', 'install'} & set(sys.argv):
            report(
                'no CUDA module: nvcc is neither on PATH nor in $CUDA_HOME/bin; slower '
                'PyTorch code replaces the kernels'
            )
        return []
    return [Extension(CUDA_MODULE, CUDA_SOURCES, optional=setting == 'auto')]


def local_architectures():
    """Return the generations of this machine's GPUs, such as ``['90']``; an empty list if
    the machine has no GPU.
    """
    query = ['nvidia-smi', '--query-gpu=compute_cap', '--format=csv,noheader']
    try:
        output = subprocess.run(query, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    found = {line.strip().replace('.', '') for line in output.splitlines()}
    return sorted((arch for arch in found if arch.isdigit()), key=int)


def architectures():
    """Return the GPU generations to build for: the generations in BEVDEPTH_CUDA_ARCHS; if this
    variable is not set, the generations of this machine's GPUs; without a GPU, ``PORTABLE_ARCHS``.
    """
    asked = os.environ.get('BEVDEPTH_CUDA_ARCHS', '').split()
    return asked or local_architectures() or PORTABLE_ARCHS


def architecture_flags(archs):
    """Return the flags with which nvcc writes machine code for every generation of ``archs``, and
    PTX code for the last generation.
    """
    flags = [f'-gencode=arch=compute_{arch},code=sm_{arch}' for arch in archs]
    return [*flags, f'-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}']


class BuildCudaModule(build_ext):
    """Builds an extension with a single nvcc command."""

    def build_extension(self, ext):
        """Compile and link ``ext``.

        Raises:
            CompileError: nvcc is missing or fails. If the extension is optional, setuptools only
                prints a warning.
        """
        nvcc = find_nvcc()
        if nvcc is None:
            raise CompileError(
                'BEVDEPTH_CUDA=1 needs nvcc: put nvcc on PATH, set CUDA_HOME, or set '
                'BEVDEPTH_CUDA=0 to build without the CUDA module'
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
        archs = architectures()
        report(
            f'compiling {ext.name} for GPU generations {" ".join(archs)} with {nvcc}; '
            'set BEVDEPTH_CUDA_ARCHS to choose other generations'
        )
        targets = architecture_flags(archs)
        command = [nvcc, *flags, *targets, *includes, *ext.sources, '-o', str(output)]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise CompileError(
                f'{ext.name} was not built: {error}; set BEVDEPTH_CUDA=0 to build without this '
                'module'
            ) from error


def shared_files(*folders):
    """Return the data_files entries that copy ``folders`` to share/bevdepth_ros."""
    files = [
        path
        for folder in folders
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file() and '__pycache__' not in path.parts
    ]
    return [(f'share/{NAME}/{path.parent}', [str(path)]) for path in files]


setup(
    name=NAME,
    version=PACKAGE.findtext('version'),
    description=PACKAGE.findtext('description'),
    license=PACKAGE.findtext('license'),
    maintainer=PACKAGE.findtext('maintainer'),
    maintainer_email=PACKAGE.find('maintainer').get('email'),
    python_requires='>=3.10',
    packages=find_packages(include=['bevdepth_core*', 'bevdepth_ros*']),
    package_data={'bevdepth_core': ['py.typed', 'weights/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        *shared_files('launch', 'config'),
    ],
    install_requires=['setuptools'],
    extras_require={
        'test': ['pytest', 'pytest-timeout'],  # colcon test looks for pytest here
        'export': ['onnx', 'onnxruntime'],
    },
    zip_safe=False,
    ext_modules=cuda_extensions(),
    cmdclass={'build_ext': BuildCudaModule},
    entry_points={
        'console_scripts': [
            'detector = bevdepth_ros.detector.__main__:main',
            'player = bevdepth_ros.programs:player',
            'recorder = bevdepth_ros.programs:recorder',
            'nuscenes_to_bag = bevdepth_ros.bags.nuscenes_to_bag:main',
            'bag_to_nuscenes = bevdepth_ros.bags.bag_to_nuscenes:main',
            'visualizer = bevdepth_ros.programs:visualizer',
            'viewer = bevdepth_ros.programs:viewer',
            'render = bevdepth_ros.rendering.render:main',
            'evaluate_node = bevdepth_ros.closed_loop.evaluate_node:main',
            'demo = bevdepth_ros.demo:main',
            'weights = bevdepth_core.downloads:main',
        ],
    },
)
