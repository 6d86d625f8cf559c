"""Packages data files: ``calib/`` as ``zmask_export/calib``, and page templates."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["zmask_export*"]), "zmask_export.calib"],
    package_dir={"zmask_export.calib": "calib"},
    package_data={
        "zmask_export": ["py.typed"],
        "zmask_export.evaluate": ["*.j2"],
        "zmask_export.calib": ["*/*.yaml", "*/*.safetensors", "*/*.png"],
    },
    exclude_package_data={"zmask_export.calib": ["camvid/*"]},  # for the checkout, with its patches
)
