"""Writes the JSON schemas of a clone's conf: python -m mnist_cnn.config schema"""

import sys
from collections.abc import Sequence

from mnist_cnn.command import command
from mnist_cnn.config.compose import CONF
from mnist_cnn.config.editor import editor_files


@command
def main(argv: Sequence[str] | None = None) -> None:
    given = sys.argv[1:] if argv is None else list(argv)
    if given != ["schema"]:
        raise ValueError(f"usage: python -m mnist_cnn.config schema, got {' '.join(given)}")
    for path, text in editor_files(CONF.parent).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        print(path)


if __name__ == "__main__":
    main()
