"""Continuous batching for a transformers model: drafts join and leave between any two steps.

``Batch`` keeps one key-value cache for all rows, padded on the left, so that every row's newest token is in the
last column. Shapes: B rows, T columns, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from agents.messages import Piece

PENDING = 8  # tokens that are held back at most for the rest of a character, which has four bytes at most
AT_ONCE = 16_384  # tokens of prompts that are read together at most, padding among them
T = TypeVar("T")


class TextStream:
    """Turns tokens into text, each time as many as were held. A character that takes several comes whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._tokens, self._begin, self._told = tokenizer, list[int](), 0, 0

    def push(self, *tokens: int) -> str:
        self._tokens += tokens
        text = self._new()
        if text.endswith("\ufffd") and len(self._tokens) - self._told < PENDING + len(tokens) - 1:
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

    ``emit`` gets every piece, the first of one token and those after it of ``interval``, or the exception that ended
    it. ``cancelled`` takes it out at the next step.
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
    interval: int = 1
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False
    _told: int = 0  # how many of them stand in a piece
    _logprob: float = 0.0
    _random: random.Random | None = None

    def take(self, token: int, logprob: float) -> Piece | None:
        """The piece that the next token makes, if any; the last one has ``finish`` set."""
        self.tokens.append(token)
        self._logprob += logprob
        held = self.tokens[self._told :]
        finish: Literal["stop", "length"] | None = None
        if token in self.stops:
            finish = "stop"
        elif len(self.tokens) >= self.limit:
            finish = "length"
        elif self._told and len(held) < self.interval:
            return None
        text = self.text.push(*(held[:-1] if finish == "stop" else held))
        if finish:
            text += self.text.end()
        piece = Piece(text, len(held), self._logprob, 0 if self._told else len(self.prompt), finish)
        self._told, self._logprob = len(self.tokens), 0.0
        return piece

    def drawn(self) -> float:
        """The next number in [0, 1) that its seed gives."""
        self._random = self._random or random.Random(self.seed)
        return self._random.random()

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

    def join(self, rows: Sequence[Row]) -> None:
        """Read the prompts of these rows together, and emit the first token of each."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        with torch.inference_mode():
            inputs, mask = self._padded([row.prompt for row in rows])
            pieces = self._written(rows, self._forward(**inputs, past_key_values=cache, logits_to_keep=1))
            self._merge(cache, mask)
            going = [True] * len(self.rows) + [_goes_on(piece) for piece in pieces]
            self.rows = [*self.rows, *rows]
            self._keep(going)
        _emit(rows, pieces)

    def step(self) -> None:
        """Drop who was cancelled, and have everybody else write another token."""
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
            rows, pieces = self.rows, self._written(self.rows, logits)
            self._keep([_goes_on(piece) for piece in pieces])
        _emit(rows, pieces)  # last, so that who has read the end of a draft finds it gone

    def logprobs(self, asked: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        """Log-probability of the second of each pair after the first, all read together."""
        import torch

        longest = max(len(tail) for _, tail in asked)
        if not longest:
            return [0.0] * len(asked)
        with torch.inference_mode():
            if len({tuple(prompt) for prompt, _ in asked}) < len(asked):
                return self._branching(asked, longest)
            inputs, _ = self._padded([[*prompt, *tail] for prompt, tail in asked])
            out = self._model(**inputs, use_cache=False, logits_to_keep=longest + 1)
            logprobs = out.logits[:, :-1].float().log_softmax(-1)
            told = logprobs.gather(2, inputs["input_ids"][:, -longest:, None])[..., 0].tolist()
        return [sum(row[longest - len(tail) :]) for row, (_, tail) in zip(told, asked, strict=True)]

    def _branching(self, asked: Sequence[tuple[Sequence[int], Sequence[int]]], longest: int) -> list[float]:
        """The same, where several go on from one prompt: it is read but once."""
        import torch
        from transformers import DynamicCache

        cache, device = DynamicCache(), self._model.device
        prompts = {tuple(prompt): place for place, prompt in enumerate(dict.fromkeys(tuple(p) for p, _ in asked))}
        from_B = torch.tensor([prompts[tuple(prompt)] for prompt, _ in asked], device=device)
        tails_BL = torch.tensor([[*tail, *[0] * (longest - len(tail))] for _, tail in asked], device=device)
        inputs, mask = self._padded(list(prompts))
        logits = self._model(**inputs, use_cache=True, past_key_values=cache, logits_to_keep=1).logits[from_B]
        if longest > 1:
            cache.batch_select_indices(from_B)
            mask, read_BL = mask[from_B], tails_BL[:, :-1]
            places = mask.sum(1, keepdim=True) + torch.arange(longest - 1, device=device)
            mask = torch.cat([mask, torch.ones_like(read_BL)], dim=1)
            out = self._model(input_ids=read_BL, attention_mask=mask, position_ids=places, past_key_values=cache)
            logits = torch.cat([logits, out.logits], dim=1)
        told = logits.float().log_softmax(-1).gather(2, tails_BL[..., None])[..., 0].tolist()
        return [sum(row[: len(tail)]) for row, (_, tail) in zip(told, asked, strict=True)]

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[dict[str, Any], Any]:
        """What the model reads, padded on the left, and the mask of what is no padding; all B x T."""
        import torch

        width, device = max(map(len, sequences)), self._model.device
        tokens = torch.tensor([[*[0] * (width - len(each)), *each] for each in sequences], device=device)
        padding_B1 = torch.tensor([[width - len(each)] for each in sequences], device=device)
        mask = (torch.arange(width, device=device) >= padding_B1).long()
        if all(len(each) == width for each in sequences):
            return {"input_ids": tokens}, mask
        places = (mask.cumsum(1) - 1).clamp(min=0)
        return {"input_ids": tokens, "attention_mask": mask, "position_ids": places}, mask

    def _written(self, rows: Sequence[Row], logits_BV: Any) -> list[Piece | None]:
        """The piece, if any, that each row's next token makes."""
        return [row.take(*chosen) for row, chosen in zip(rows, self._choose(rows, logits_BV), strict=True)]

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
        if warm := [at for at, row in enumerate(rows) if row.temperature > 0]:
            tokens_B[warm] = _drawn([rows[at] for at in warm], logits_BV[warm])
        chosen = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
        return list(zip(tokens_B.tolist(), chosen.tolist(), strict=True))

    def _merge(self, cache: Any, mask: Any) -> None:
        """Put new rows below the others."""
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


def together(items: Iterable[T], tokens: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in their order, in groups of at most ``AT_ONCE`` tokens when padded, or of one."""
    group, width = list[T](), 0
    for item in items:
        width = max(width, tokens(item))
        if group and width * (len(group) + 1) > AT_ONCE:
            yield group
            group, width = [], tokens(item)
        group.append(item)
    if group:
        yield group


def _goes_on(piece: Piece | None) -> bool:
    return piece is None or piece.finish is None


def _drawn(rows: Sequence[Row], logits_BV: Any) -> Any:
    """A token for each row, drawn at its temperature by its own seed: where its cumulated shares pass what it drew."""
    import torch

    temperatures_B = torch.tensor([row.temperature for row in rows], device=logits_BV.device)
    passed_BV = (logits_BV / temperatures_B[:, None]).softmax(-1).cumsum(-1)
    whole_B1 = passed_BV[:, -1:]
    drawn_B1 = torch.tensor([[row.drawn()] for row in rows], device=logits_BV.device) * whole_B1
    below_B1 = torch.nextafter(whole_B1, torch.zeros_like(whole_B1))  # rounding may not take it beyond the last
    return torch.searchsorted(passed_BV, torch.minimum(drawn_B1, below_B1), right=True)[:, 0]


def _emit(rows: Sequence[Row], pieces: Sequence[Piece | None]) -> None:
    for row, piece in zip(rows, pieces, strict=True):
        if piece is not None:
            row.emit(piece)
