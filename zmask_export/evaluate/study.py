"""The description of a study: networks, patches, series of patches and rivals, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from zmask_export.artifacts.yaml_file import load_yaml
from zmask_export.data.segmentation import split_images
from zmask_export.spec import Spec

QUICK_IMAGES = 2
QUICK_RESAMPLES = 100

TABLE_ROWS: tuple[Literal["Rand", "S", "M", "L"], ...] = ("Rand", "S", "M", "L")
"""Rows of Table 4 below the clean one: a random patch, and small, medium, large ones."""


def _beside(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", ".")) / path


Beside = Annotated[Path, AfterValidator(_beside)]
"""A path; a relative one starts at the folder of the study's file."""
Share = Annotated[float, Field(ge=0, le=1)]


class Series(Spec):
    """Patches that differ in beta or alpha.

    Attributes:
        files: path with ``{value}`` in its name, which stands for the number as in 0.1 or 1.0.
        values: the numbers.
    """

    files: Beside
    values: Annotated[tuple[Share, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Series:
        if "{value}" not in self.files.name:
            raise ValueError("files must have {value} in its name")
        if len(set(self.values)) != len(self.values):
            raise ValueError("values name a number twice")
        return self

    def ends(self) -> Series:
        """The same with its smallest and its largest value alone."""
        return self.model_copy(
            update={"values": tuple(sorted({min(self.values), max(self.values)}))}
        )

    def path(self, value: float) -> Path:
        """The patch of one value."""
        return self.files.with_name(self.files.name.replace("{value}", repr(float(value))))


class DetectorSource(Spec):
    """Where HN and FPDA get their statistics.

    Attributes:
        images: folder of clean images, none of which is evaluated.
        split: or the images of this split of the study's data set.
        limit: at most this many, spread evenly.
        tap: the layer; the coarsest of the set D where None.
    """

    images: Beside | None = None
    split: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    tap: str | None = None

    @model_validator(mode="after")
    def _check(self) -> DetectorSource:
        if (self.images is None) == (self.split is None):
            raise ValueError("give images or split")
        return self

    def folder(self, root: Path) -> Path:
        """Where the clean images are; ``root`` is the study's data set."""
        return self.images or split_images(root, self.split or "")


class NetworkStudy(Spec):
    """One network of a study, which segments or detects objects.

    Attributes:
        bundle: what ``build`` wrote; measured through its runner.
        model: registered name; for the reference, and for HN and FPDA, which need its layers.
        preset: of ``model``, as ``--preset`` takes it; its own where None.
        weights, calibration: of ``model``; the shipped ones where None.
        patches: row of Table 4 to its patch.
        beta: over-activation series (Figure 6, of detectors 13).
        alpha: defense-aware series (Figure 9): ``mask`` and ``flag`` against Z-Mask, ``masknet``
            against MaskNet's own mask.
        lgs: measure LGS.
        masknet: MaskNet's weights.
        detectors: measure HN and FPDA.
    """

    bundle: Beside | None = None
    model: str | None = None
    preset: str | None = None
    weights: Beside | None = None
    calibration: Beside | None = None
    patches: dict[Literal["Rand", "S", "M", "L"], Beside] = Field(default_factory=dict)
    beta: Series | None = None
    alpha: dict[Literal["mask", "flag", "masknet"], Series] = Field(default_factory=dict)
    lgs: bool = True
    masknet: Beside | None = None
    detectors: DetectorSource | None = None

    def quick(self) -> NetworkStudy:
        """The same with the ends of every series, and few images for the detectors."""
        return self.model_copy(
            update={
                "beta": None if self.beta is None else self.beta.ends(),
                "alpha": {name: series.ends() for name, series in self.alpha.items()},
                "detectors": self.detectors
                and self.detectors.model_copy(update={"limit": QUICK_IMAGES}),
            }
        )

    @model_validator(mode="after")
    def _check(self) -> NetworkStudy:
        if self.bundle is None and self.model is None:
            raise ValueError("give bundle, model, or both")
        if self.detectors is not None and self.model is None:
            raise ValueError("detectors need model, whose layers they read")
        return self


class Study(Spec):
    """What a study measures.

    Attributes:
        about: one line for the report.
        data: data set with the labels that the networks need, see ``data.layouts``; None where it is
            given on the command line.
        split: of the data set.
        limit: at most this many images, spread evenly.
        series_limit: of these, at most this many for the series over beta and alpha.
        seed: of the patches' places and of the bootstrap.
        resamples: of the bootstrap.
        networks: name to network; the name also names the folder of its cells.
    """

    about: str
    data: Beside | None = None
    split: str = "val"
    limit: Annotated[int, Field(ge=1)] | None = None
    series_limit: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    resamples: Annotated[int, Field(ge=1, le=100_000)] = 1000
    networks: Annotated[
        dict[Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_-]*$")], NetworkStudy],
        Field(min_length=1),
    ]

    def quick(self) -> Study:
        """The same with few images, resamples and points: shows that all runs, and no more."""
        return self.model_copy(
            update={
                "limit": min(self.limit or QUICK_IMAGES, QUICK_IMAGES),
                "resamples": min(self.resamples, QUICK_RESAMPLES),
                "networks": {name: network.quick() for name, network in self.networks.items()},
            }
        )


def load_study(path: Path) -> Study:
    """Read a study's description; relative paths in it start at its folder. See ``load_yaml``."""
    return load_yaml(path, Study, "study")
