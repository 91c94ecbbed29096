"""Files of a user's data as they were when they were listed, so that a change during a run is noticed."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from rlnas.errors import DataError


@dataclass(frozen=True)
class FileStamp:
    """A file as it was: its size in bytes and when it was last modified, in nanoseconds."""

    path: Path
    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> FileStamp:
        """The file as it is now.

        Raises:
            DataError: if it is missing or no regular file.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: not a readable file ({error.strerror})") from None
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: is no regular file")
        return cls(path, status.st_size, status.st_mtime_ns)

    def require_unchanged(self) -> None:
        """Make sure that the file is still as it was.

        Raises:
            DataError: if it vanished or changed.
        """
        if not self.path.exists():
            raise DataError(f"{self.path}: has vanished since it was listed")
        if FileStamp.of(self.path) != self:
            raise DataError(f"{self.path}: has changed since it was listed")
