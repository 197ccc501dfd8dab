"""File names arrive as their sender meant them, whoever wrote the header."""

import pytest

from agent_sandbox.sandboxd.disposition import file_name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('form-data; name="file"; filename="test.py"', "test.py"),
        ('form-data; name="file"; filename="/tmp/test.py"', "/tmp/test.py"),
        ('form-data; name="file"; filename="a;b=c.txt"', "a;b=c.txt"),
        ('form-data; name="file"; filename="a%22b%41.txt"', 'a"b%41.txt'),
        (r'form-data; name="file"; filename="a\"b\\c"', r'a"b\c'),
        ("form-data; name=file; filename=plain.txt", "plain.txt"),
        ("form-data; name=file; filename=x; filename*=UTF-8''%E6%97%A5%20%2Fx", "日 /x"),
        ("form-data; name=file; filename*=utf-8'en'%41", "A"),
        ('form-data; name="file"', None),
        ('form-data; name="file"; filename=""', None),
        ("", None),
        ('filename="x', None),
    ],
)
def test_file_name_is_read(header: str, name: str | None) -> None:
    assert file_name(header) == name


def test_bytes_that_are_no_utf8_survive() -> None:
    assert file_name("form-data; filename*=UTF-8''%FF") == "\udcff"
