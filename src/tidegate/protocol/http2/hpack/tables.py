"""The static table (RFC 7541 appendix A), and what an entry of a dynamic one counts for."""

from __future__ import annotations

Field = tuple[bytes, bytes]

OVERHEAD = 32  # RFC 7541 4.1: beside its name and value
FIRST_DYNAMIC = 62  # RFC 7541 2.3.3: the newest entry's index
DEFAULT_SIZE = 4096  # RFC 9113 6.5.2: of a dynamic table, until a SETTINGS says otherwise

_LINES = b"""\
:authority
:method GET
:method POST
:path /
:path /index.html
:scheme http
:scheme https
:status 200
:status 204
:status 206
:status 304
:status 400
:status 404
:status 500
accept-charset
accept-encoding gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""


def _field(line: bytes) -> Field:
    name, _, value = line.partition(b" ")
    return name, value


# In the order of their indexes, which begin with 1.
STATIC: tuple[Field, ...] = tuple(map(_field, _LINES.splitlines()))


def size_of(field: Field) -> int:
    """What a field counts in a table (RFC 7541 4.1), and in a header list (RFC 9113 6.5.2)."""
    return len(field[0]) + len(field[1]) + OVERHEAD
