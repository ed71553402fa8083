"""Texts of a line: numbers, amounts, dates, sums, words."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from mnist_cnn.data.synthetic.characters import EASTERN, LIKE_DIGITS, TWINS, WESTERN


def digits(rng: Generator, low: int, high: int) -> str:
    return "".join(map(str, rng.integers(0, 10, int(rng.integers(low, high + 1)))))


def _amount(rng: Generator) -> str:
    if rng.random() < 0.4:  # round amounts have many zeros
        text = f"{rng.integers(1, 999)}" + rng.choice(
            ["000", "00", "0000", ".000", ",000", " 000", ".000", ".00", ",00"]
        )
    elif rng.random() < 0.5:
        text = f"{rng.integers(1, 1000)}{rng.choice(['.', ',', ' ', '.'])}{digits(rng, 3, 3)}"
    else:
        text = digits(rng, 2, 6)
    start = rng.choice(["", "", "", "$", "=", "#", "-", "("])
    return start + text + rng.choice(["", "", "", ".", "-", ".-", "=", ",", "/", "--", "#", ")"])


def _date(rng: Generator) -> str:
    sign = rng.choice(["/", ".", "-"])
    return sign.join((f"{rng.integers(1, 32)}", f"{rng.integers(1, 13):02}", digits(rng, 2, 4)))


def _phone(rng: Generator) -> str:
    form = rng.choice(["+{}-{}-{}", "({}){}-{}", "{}/{}-{}", "{} {} {}"])
    return form.format(digits(rng, 2, 3), digits(rng, 3, 3), digits(rng, 3, 4))


def _sum(rng: Generator) -> str:
    left, right, total = digits(rng, 1, 2), digits(rng, 1, 2), digits(rng, 1, 3)
    return f"{left}{rng.choice(list('+-×÷/'))}{right}={total}"


def _unit(rng: Generator) -> str:
    return rng.choice(
        ["{}%", "{}°", "#{}", "${}", "{}:{}", "({})", "{}°C", "{}m", "+{}", "-{}", "±{}"]
    ).format(digits(rng, 1, 3), digits(rng, 2, 2))


def _word(rng: Generator, beside_digits: bool = False) -> str:
    letters = WESTERN if rng.random() < 0.8 else EASTERN
    if beside_digits:
        letters = "".join(letter for letter in letters if letter not in LIKE_DIGITS)
    word = rng.choice(list(letters), int(rng.integers(1, 8)))
    if not beside_digits and len(word) > 2 and rng.random() < 0.6:
        # add digit-like letters, in the minority, so that most letters are unambiguous
        for k in rng.choice(len(word), int(rng.integers(1, (len(word) + 1) // 2)), replace=False):
            word[k] = rng.choice(list(TWINS))
    return "".join(word)


def _mixed(rng: Generator) -> str:
    start = f"{_word(rng, True)} {digits(rng, 1, 4)} {_word(rng, True)[0]}"
    return f"{start}{rng.choice(['=', '+', '-'])}{digits(rng, 1, 2)}"


TEXTS: dict[str, Callable[[Generator], str]] = {
    "number": lambda rng: digits(rng, 1, 9),
    "amount": _amount,
    "date": _date,
    "phone": _phone,
    "sum": _sum,
    "unit": _unit,
    "word": lambda rng: f"{_word(rng)} {_word(rng)}",
    "power": lambda rng: rng.choice(["{}²", "{}³", "{}²={}", "k² {} {}"]).format(
        digits(rng, 1, 2), digits(rng, 1, 3)
    ),
    "mixed": _mixed,
}
# probability of each kind of text in a line
SHARES = np.array([0.25, 0.30, 0.08, 0.07, 0.08, 0.09, 0.06, 0.03, 0.04])
