from fakegan.errors import one_line


def test_another_librarys_error_is_one_line_and_is_never_empty() -> None:
    error = ValueError("no such thing:\n\t a\n b ")
    assert [one_line(error, length) for length in (None, 300, 7)] == [*["no such thing: a b"] * 2, "no such"]
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
