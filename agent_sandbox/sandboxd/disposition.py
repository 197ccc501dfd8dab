"""Reads the file name out of a multipart part's Content-Disposition, byte for byte as the caller meant it.

aiohttp's own reader strips leading slashes; the seed's contract names files absolutely (``/tmp/test.py``).
"""

import re
from typing import Final
from urllib.parse import unquote

_PARAMETER: Final = re.compile(r';\s*([A-Za-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))')
_ESCAPED: Final = re.compile(r"\\(.)")
_BROWSER_ESCAPES: Final = (("%22", '"'), ("%0D", "\r"), ("%0A", "\n"))


def file_name(disposition: str) -> str | None:
    """The file name of a part, or None.

    ``filename*`` (RFC 8187) wins over ``filename``; the latter is taken literally but for what browsers escape in it.

    >>> file_name('form-data; name="file"; filename="/tmp/a b.py"')
    '/tmp/a b.py'
    >>> file_name("form-data; name=file; filename=x; filename*=UTF-8''%2Ftmp%2F%C3%A9")
    '/tmp/é'
    """
    found = {match[1].lower(): (match[2], match[3]) for match in _PARAMETER.finditer(disposition)}
    if "filename*" in found:
        quoted, token = found["filename*"]
        charset, _, rest = (token or quoted or "").partition("'")
        if charset.lower() in ("utf-8", "us-ascii"):
            return unquote(rest.partition("'")[2], errors="surrogateescape") or None
    if "filename" not in found:
        return None
    quoted, token = found["filename"]
    if token:
        return token
    name = _ESCAPED.sub(r"\1", quoted)
    for escaped, plain in _BROWSER_ESCAPES:
        name = name.replace(escaped, plain).replace(escaped.lower(), plain)
    return name or None
