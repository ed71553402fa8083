"""What is printed is what was meant, whatever it is made of."""

import pytest

from mnist_cnn import terminal


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a[x]b :x: [red] 3 " + 300 * "long "
    terminal.console().print(text)
    assert capsys.readouterr().out == f"{text}\n"
    assert terminal.printable("a\x1b[31m\x07b") == "a?[31m?b"
