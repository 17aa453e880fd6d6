"""How messages travel between processes: as MessagePack, read back as the kind that is expected there."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.msgpack import Decoder, Encoder

from agents.messages import Accepted, Batch, Query, Rejected

pack = Encoder().encode
read_query = Decoder(Query).decode
read_routed: Callable[[bytes], Accepted | Rejected] = Decoder(Accepted | Rejected).decode
read_pulled: Callable[[bytes], Batch | Rejected] = Decoder(Batch | Rejected).decode
