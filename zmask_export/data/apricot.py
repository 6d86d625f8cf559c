"""APRICOT: photographs of printed adversarial patches (Braunegg et al. 2020, https://apricot.mitre.org).

As it lies on disk after the official download: ``root/Images/<split>/*.jpg`` and
``root/Annotations/apricot_<split>_all_annotations.json``, splits "dev" and "test". The files are
COCO's format with one category more, the patches; these are marked by boxes, not by outlines.
"""

from __future__ import annotations

from pathlib import Path

from zmask_export.data.coco import BoxFolder

PATCH_CATEGORY = 12
"""Category id of «adversarial patch», an id that COCO leaves free."""


class ApricotFolder(BoxFolder):
    """One split of APRICOT; a sample's ``patches`` are apart from its objects.

    Args:
        root: the folder with ``Images/`` and ``Annotations/``.
        split: "dev" or "test".
        limit: at most this many images, spread evenly.

    Raises:
        DatasetError, UsageError: see :class:`~zmask_export.data.coco.BoxFolder`; also annotations
            without a category of patches.
    """

    def __init__(self, root: Path, split: str, *, limit: int | None = None) -> None:
        file = root / "Annotations" / f"apricot_{split}_all_annotations.json"
        super().__init__(root / "Images" / split, file, limit=limit, patch_category=PATCH_CATEGORY)
