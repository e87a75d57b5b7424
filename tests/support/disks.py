"""File systems that run full or lose their power. Mounted by root."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """Have a file system with little room, such as `160m`."""
    with tempfile.TemporaryDirectory(prefix="cdisk-") as name:
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "tmpfs", name)
        try:
            yield Path(name)
        finally:
            _run("umount", "--lazy", name)


def fill(disk: Path) -> Path:
    """Leave no room, and return the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass
    return filler


class LosesPower:
    """An ext4 file system in a file.

    What nobody synced is in the kernel's memory alone and not in that file, so a copy of the file
    is what there is after a loss of power.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="cdisk-"))
        self._directory.chmod(0o711)
        self._image = self._directory / "image"
        self.path = self._directory / "disk"

    def __enter__(self) -> "LosesPower":
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(256 << 20)
        _run("mkfs.ext4", "-q", str(self._image))
        self._mount()
        return self

    def sync(self) -> None:
        """Write everything through."""
        _run("sync", "--file-system", str(self.path))

    def lose_power(self) -> None:
        """Go on with what was written through. Whoever used it is gone."""
        copy = self._image.with_suffix(".copy")
        shutil.copyfile(self._image, copy)
        _run("umount", "--lazy", str(self.path))
        self._image = copy
        self._mount()

    def __exit__(self, *_: object) -> None:
        _run("umount", "--lazy", str(self.path))
        shutil.rmtree(self._directory)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
