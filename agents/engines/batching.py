"""Continuous batching for a transformers model: drafts join and leave between any two steps.

``Batch`` keeps one key-value cache for all rows, padded on the left, so that every row's newest token is in the
last column. Shapes: B rows, T columns, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agents.messages import Piece

PENDING = 8  # tokens that are held back at most for the rest of a character, which has four bytes at most


class TextStream:
    """Turns tokens into text one by one. A character that takes several tokens comes whole, with its last."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._tokens, self._begin, self._told = tokenizer, list[int](), 0, 0

    def push(self, token: int) -> str:
        self._tokens.append(token)
        text = self._new()
        if text.endswith("\ufffd") and len(self._tokens) - self._told < PENDING:
            return ""
        # what was told last stays in sight: a tokenizer may write a word differently at the beginning of a text
        self._begin, self._told = self._told, len(self._tokens)
        return text

    def end(self) -> str:
        """What is still held back."""
        return self._new()

    def _new(self) -> str:
        told, now = self._tokens[self._begin : self._told], self._tokens[self._begin :]
        return self._decode(now)[len(self._decode(told)) :]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@dataclass(eq=False)
class Row:
    """One draft. ``never_first`` may not be its first token; ``banned`` may not stand anywhere in it.

    ``emit`` gets every piece, or the exception that ended it. ``cancelled`` takes it out at the next step.
    """

    prompt: list[int]
    limit: int
    stops: frozenset[int]
    text: TextStream
    emit: Callable[[Piece | Exception], None]
    temperature: float = 0.0
    seed: int = 0
    never_first: frozenset[int] = frozenset()
    banned: Sequence[int] = ()
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    generator: Any = None

    def take(self, token: int, logprob: float) -> Piece:
        """The piece that the next token makes; the last one has ``finish`` set."""
        first = not self.tokens
        self.tokens.append(token)
        finish: Literal["stop", "length"] | None = None
        if token in self.stops:
            finish, text = "stop", self.text.end()
        else:
            text = self.text.push(token)
            if len(self.tokens) >= self.limit:
                finish, text = "length", text + self.text.end()
        return Piece(text, 1, logprob, len(self.prompt) if first else 0, finish)

    def forbidden(self) -> list[int]:
        """Tokens that may not come next."""
        forbidden = [] if self.tokens else list(self.never_first)
        *begin, last = self.banned or (None,)
        if last is not None and self.tokens[len(self.tokens) - len(begin) :] == begin:
            forbidden.append(last)
        return forbidden


class Batch:
    """The rows that are decoded together."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.clear()

    def clear(self) -> None:
        self.rows: list[Row] = []
        self._cache: Any = None
        self._mask: Any = None  # B x T, 1 where a row has a token

    def join(self, row: Row) -> None:
        """Read the row's prompt and emit its first token."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        prompt = torch.tensor([row.prompt], device=self._model.device)
        with torch.inference_mode():
            logits = self._forward(input_ids=prompt, past_key_values=cache, logits_to_keep=1)
            ((token, logprob),) = self._choose([row], logits)
            piece = row.take(token, logprob)
            if not piece.finish:
                self._merge(cache, torch.ones_like(prompt))
                self.rows.append(row)
        row.emit(piece)

    def step(self) -> None:
        """Drop who was cancelled, and emit everybody else's next token."""
        import torch

        self._keep([not row.cancelled for row in self.rows])
        if not self.rows:
            return
        with torch.inference_mode():
            last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._model.device)
            self._mask = torch.cat([self._mask, torch.ones_like(last)], dim=1)
            positions = self._mask.sum(1, keepdim=True) - 1
            logits = self._forward(
                input_ids=last, attention_mask=self._mask, position_ids=positions, past_key_values=self._cache
            )
            rows = self.rows
            pieces = [row.take(*chosen) for row, chosen in zip(rows, self._choose(rows, logits), strict=True)]
            self._keep([piece.finish is None for piece in pieces])
        # last, so that who has read the end of a draft finds it gone
        for row, piece in zip(rows, pieces, strict=True):
            row.emit(piece)

    def logprob(self, prompt: Sequence[int], tail: Sequence[int]) -> float:
        """Log-probability of ``tail`` after ``prompt``."""
        import torch

        with torch.inference_mode():
            tokens = torch.tensor([[*prompt, *tail]], device=self._model.device)
            out = self._model(input_ids=tokens, use_cache=False, logits_to_keep=len(tail) + 1)
            logprobs = out.logits[0, :-1].float().log_softmax(-1)
            return float(logprobs.gather(1, tokens[0, -len(tail) :, None]).sum()) if tail else 0.0

    def _forward(self, **inputs: Any) -> Any:
        """Logits of the last column, B x V, in float32."""
        return self._model(use_cache=True, **inputs).logits[:, -1].float()

    def _choose(self, rows: Sequence[Row], logits_BV: Any) -> list[tuple[int, float]]:
        """Each row's next token and its log-probability, that before any masking or temperature."""
        import torch

        logprobs_BV = logits_BV.log_softmax(-1)
        for at, row in enumerate(rows):
            if forbidden := row.forbidden():
                logits_BV[at, forbidden] = -torch.inf
        tokens_B = logits_BV.argmax(-1)
        for at, row in enumerate(rows):
            if row.temperature > 0:
                tokens_B[at] = self._drawn(row, logits_BV[at])
        chosen = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
        return list(zip(tokens_B.tolist(), chosen.tolist(), strict=True))

    def _drawn(self, row: Row, logits_V: Any) -> Any:
        import torch

        if row.generator is None:
            row.generator = torch.Generator(logits_V.device).manual_seed(row.seed)
        shares = (logits_V / row.temperature).softmax(-1)
        return torch.multinomial(shares, 1, generator=row.generator)[0]

    def _merge(self, cache: Any, mask: Any) -> None:
        """Put a row below the others."""
        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        import torch

        width = max(self._mask.shape[1], mask.shape[1])
        for mine, new in zip(self._cache.layers, cache.layers, strict=True):
            mine.keys = torch.cat([_padded(mine.keys, width, -2), _padded(new.keys, width, -2)])
            mine.values = torch.cat([_padded(mine.values, width, -2), _padded(new.values, width, -2)])
        self._mask = torch.cat([_padded(self._mask, width, -1), _padded(mask, width, -1)])

    def _keep(self, stay: list[bool]) -> None:
        """Take out rows, and the columns on the left that no other row needs."""
        if all(stay):
            return
        self.rows = [row for row, stays in zip(self.rows, stay, strict=True) if stays]
        if not self.rows:
            self.clear()
            return
        import torch

        kept = torch.tensor(stay, device=self._mask.device)
        mask = self._mask[kept]
        begin = int(mask.any(0).int().argmax())
        self._mask = mask[:, begin:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[kept, :, begin:]
            layer.values = layer.values[kept, :, begin:]


def _padded(tensor: Any, width: int, dim: int) -> Any:
    """``tensor`` with zeros before dimension ``dim`` (-1 or -2), up to ``width``."""
    from torch.nn.functional import pad

    missing = width - tensor.shape[dim]
    return pad(tensor, (missing, 0) if dim == -1 else (0, 0, missing, 0))
