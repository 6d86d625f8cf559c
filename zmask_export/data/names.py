"""Names of files: bytes on disk, text in every result."""

from __future__ import annotations

from pathlib import Path

from zmask_export.errors import DatasetError


def require_utf8(path: Path) -> None:
    """Refuse a file's name that no result and no manifest can hold.

    Raises:
        DatasetError: it is no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as exc:
        raise DatasetError(
            f"The name of the file {str(path)!a} is no UTF-8.", fix="Rename the file."
        ) from exc
