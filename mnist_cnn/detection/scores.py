"""Metrics of the characters found on a generated page."""

from collections.abc import Iterator, Sequence

from torch import Tensor
from torchmetrics.functional.text import char_error_rate

from mnist_cnn.data.synthetic.sheet import SYMBOLS, Mark
from mnist_cnn.detection.decode import Character, shared
from mnist_cnn.detection.lines import band, lines, within

COVERED = 0.5  # overlap above which a found character matches a true one


def marks_of(rows: Tensor) -> list[Mark]:
    """Convert rows (N, 7), see `loss.targets`, to the characters of a page."""
    return [
        Mark(SYMBOLS[int(kind)] if flag > 0 else "", tuple(box), size)
        for kind, *box, size, flag in rows.tolist()
        if flag >= 0
    ]


def matches(found: Sequence[Character], there: Sequence[Mark]) -> Iterator[tuple[Character, bool]]:
    """Iterate over the found characters and whether each is right; each mark is matched once.

    Those on a character without a symbol, which is cut off or of a size near those to detect, are
    skipped.
    """
    taken: set[int] = set()
    for each in found:
        covers = [shared(each.box, mark.box) for mark in there]
        own = max(range(len(there)), key=covers.__getitem__, default=-1)
        if own < 0 or covers[own] <= COVERED:
            yield each, False
        elif there[own].symbol:
            yield each, own not in taken and there[own].symbol == each.symbol
            taken.add(own)


def line_texts(line: Sequence[Character], there: Sequence[Mark]) -> tuple[str, str] | None:
    """Return the digits found in a line and the true ones; None if a character is cut off."""
    own = band(line)
    marks = sorted(
        (mark for mark in there if within(mark.box, own)),
        key=lambda mark: (mark.box[0] + mark.box[2], mark.symbol),
    )
    if not all(mark.symbol for mark in marks):
        return None
    text = "".join(each.symbol for each in line if each.symbol.isdecimal())
    return text, "".join(mark.symbol for mark in marks if mark.symbol.isdecimal())


def page_scores(found: Sequence[Character], there: Sequence[Mark]) -> dict[str, tuple[float, int]]:
    """Return the metrics of a page, each as a sum and its divisor.

    precision and recall of characters with their class; error, the missed and the false characters
    over the true ones, where one of the wrong class is both; rows, the fraction of lines whose
    digits are right; edits, the edits from their digits to the true ones over the number of true
    digits.
    """
    verdicts = [is_right for _, is_right in matches(found, there)]
    right, n = sum(verdicts), sum(bool(mark.symbol) for mark in there)
    texts = [pair for line in lines(found) if (pair := line_texts(line, there)) and pair[1]]
    digits = sum(len(true) for _, true in texts)
    edits = 0.0
    if texts:
        own, true = map(list, zip(*texts, strict=True))
        edits = float(char_error_rate(own, true)) * digits
    return {
        "precision": (right, len(verdicts)),
        "recall": (right, n),
        "error": (len(verdicts) + n - 2 * right, n),
        "rows": (sum(own == true for own, true in texts), len(texts)),
        "edits": (edits, digits),
    }
