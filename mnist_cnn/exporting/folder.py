"""Output folder of an export: all of its files are written, or none."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnist_cnn.config.messages import must_be


@contextlib.contextmanager
def new_files(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary folder, whose files of these names are then moved to `out`, all or none.

    After an error, folders that were created for `out` are removed.

    Raises:
        ValueError: `out` is a file or has a file of such a name.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(must_be("--out", "a folder", f"{out}, which is a file"))
    for name in names:
        if (out / name).exists():
            raise taken(out, name)
    placed: list[Path] = []
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            allowed = f"a folder that can be made ({e.strerror})"
            raise ValueError(must_be("--out", allowed, out)) from None
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
            yield Path(folder)
            for name in names:  # reserved by an empty file, as another export may be under way
                try:
                    (out / name).touch(exist_ok=False)
                except FileExistsError:
                    raise taken(out, name) from None
                placed.append(out / name)
            for path in placed:
                Path(folder, path.name).replace(path)
    except BaseException:
        for path in placed:
            path.unlink()
        for each in made:
            with contextlib.suppress(OSError):  # not made, or another program has put files there
                each.rmdir()
        raise


def taken(out: Path, name: str) -> ValueError:
    return ValueError(f"--out must be a folder without {name}, got {out}")
