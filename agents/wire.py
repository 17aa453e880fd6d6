"""How messages travel between processes: as MessagePack, read back as the kind that is expected there.

What plug-ins made goes through ``sound`` first, so that nothing can be in a message that cannot travel.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import replace

from agents.messages import Accepted, Batch, Piece, Query, Rejected, Scores


def _plain(value: Any) -> Any:
    """A number or text of a kind that msgspec does not know (numpy's, a subclass) as Python's own."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{value!r} is neither a number nor a text")


pack = Encoder(enc_hook=_plain).encode
read_query = Decoder(Query).decode
read_routed: Callable[[bytes], Accepted | Rejected] = Decoder(Accepted | Rejected).decode
read_pulled: Callable[[bytes], Batch | Rejected] = Decoder(Batch | Rejected).decode
read_piece = Decoder(Piece).decode
read_scores = Decoder(Scores).decode


def sound(said: Piece | Scores) -> Any:
    """The same, of plain numbers and text that is Unicode. Raises ValueError, TypeError where it is no such thing."""
    if isinstance(said, Scores):
        return read_scores(pack(said))
    try:
        return read_piece(pack(said))
    except UnicodeEncodeError:
        return read_piece(pack(replace(said, text=unicode(said.text))))


def unicode(text: str) -> str:
    """``text`` with a replacement character for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
