"""Make tutorial.ipynb from tutorial.md, with outputs: python docs/make_notebook.py [FILE]

Each block of Python or of commands becomes a cell; blocks of Keras stay text. Blocks of printed
output are left out, as the cells print it.
"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

HERE = Path(__file__).parent
PAGE, NOTEBOOK = HERE / "tutorial.md", HERE / "tutorial.ipynb"
INSTALL = """\
# on Colab: put the address that you clone from in place of REPOSITORY
try:
    import mnist_cnn
except ImportError:
    %pip install -q "mnist-cnn[photo,sweep] @ git+REPOSITORY\""""
FOLDERS = {"history.png": "outputs/tutorial", "mistakes.png": "outputs/tutorial/evaluation/test"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$|^!\[.*?\]\((.*?)\)$", re.DOTALL | re.MULTILINE)


def cells(page: str) -> list[nbformat.NotebookNode]:
    """Make the cells of a Markdown page, without outputs."""
    made, text, end = [new_code_cell(INSTALL)], "", 0
    for block in [*BLOCK.finditer(page), None]:
        text += page[end : block.start() if block else None]
        end = block.end() if block else 0
        language, content, picture = block.groups() if block else ("", "# Keras", None)
        if block and (content or "").startswith("# Keras"):
            text += block[0]
            continue
        if block and not picture and not language:
            continue
        if text.strip():
            made.append(new_markdown_cell(re.sub(r"\[([^]]*)\]\(\.\./.*?\)", r"\1", text.strip())))
        text = ""
        if picture:
            place = "/".join(filter(None, [FOLDERS.get(picture), picture]))
            made.append(new_code_cell(f'from IPython.display import Image\n\nImage("{place}")'))
        elif block:
            command = re.sub("^(?=python)", "!", content.strip(), flags=re.MULTILINE)
            made.append(new_code_cell(command))
    for number, cell in enumerate(made):
        cell["id"] = str(number)  # reproducible
    return made


def make() -> nbformat.NotebookNode:
    """Make and execute the notebook; raises nbclient's CellExecutionError if a cell fails."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells(PAGE.read_text("utf-8")), metadata={"kernelspec": kernel})
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["COLUMNS"] = "110"
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # timestamps
        if cell.cell_type == "code":
            cell.outputs = shortened(cell.outputs, folder)
    return notebook


def shortened(outputs: list[nbformat.NotebookNode], folder: str) -> list[nbformat.NotebookNode]:
    """Merge the text of a cell's outputs, as a terminal would end up showing it; keep pictures."""
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    lines = [line.split("\x1b[2K")[-1] for line in text.replace(folder, "/content").splitlines()]
    lines = [re.sub(r"\x1b\[[\d;?]*\w", "", line).rstrip() for line in lines]
    # drop overdrawn progress bars; a table's rules begin with a corner
    lines = [line for line in lines if "━━" not in line or line[0] in "┏┡"]
    text = "\n".join(lines).strip("\n")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    for picture in pictures:
        picture.data = {"image/png": small(picture.data["image/png"])}
    return [new_output("stream", name="stdout", text=text)] * bool(text) + pictures


def small(png: str) -> str:
    """Reduce a base64 PNG to 64 colours."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(64).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    nbformat.write(make(), sys.argv[1] if sys.argv[1:] else NOTEBOOK)
