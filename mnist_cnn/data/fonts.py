"""The fonts that come with Matplotlib."""

from pathlib import Path

from PIL import ImageFont


def load_font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """Load a font by its name, such as DejaVuSans or cmr10, at a size in pixels."""
    import matplotlib  # takes a second

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), size)
