"""Pictures by class in a folder, without hidden files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from mnist_cnn.data.picture import suffixes


class VisibleImageFolder(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ImageFolder without files and folders whose names begin with a dot.

    Desktops and notebooks leave these behind (.DS_Store, ._cat.png, .ipynb_checkpoints). Pictures
    are known by the suffixes of what `load_picture` reads.

    Args:
        root: the folder of the classes.
        loader: reads a picture from its path.
    """

    def __init__(self, root: Path, loader: Callable[[str], Any]):
        known = suffixes()

        def is_visible(path: str) -> bool:
            parts = Path(path).relative_to(root).parts
            is_picture = Path(path).suffix.lower() in known
            return is_picture and not any(part.startswith(".") for part in parts)

        super().__init__(root, loader=loader, is_valid_file=is_visible)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = [name for name in super().find_classes(directory)[0] if not name.startswith(".")]
        if not names:
            raise FileNotFoundError(f"no folder of a class in {directory}")
        return names, {name: k for k, name in enumerate(names)}
