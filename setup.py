"""Packages ``calib/`` inside the wheel, as ``zmask_export/calib``; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["zmask_export*"]), "zmask_export.calib"],
    package_dir={"zmask_export.calib": "calib"},
    package_data={
        "zmask_export": ["py.typed"],
        "zmask_export.calib": ["*/*.yaml", "*/*.safetensors", "*/*.png"],
    },
)
