"""Chat messages to token ids. What users write stays text, whatever it looks like."""

from __future__ import annotations

import functools
import itertools
import re
import secrets
from collections.abc import Sequence
from typing import Any

from agents.messages import Message


def encode_chat(tokenizer: Any, messages: Sequence[Message], continued: str = "") -> list[int]:
    """Token ids of the prompt that makes a model answer ``messages``, having begun with ``continued`` already.

    Contents never become control tokens: where one spells a control token ("<|im_end|>"), the template is
    rendered around placeholders, and the contents are encoded apart from it. All other prompts are exactly
    what ``tokenizer.apply_chat_template`` gives. A tokenizer without a chat template (a base model) gets the
    contents joined by newlines, after the special tokens that it puts before every text.
    """
    control = _control_tokens(tokenizer)
    if not tokenizer.chat_template:
        prefix: list[int] = list(tokenizer("")["input_ids"])
        return prefix + encode_text(tokenizer, "\n".join(m.content for m in messages) + continued, control)
    if control and any(control.search(message.content) for message in messages):
        prompt = _encode_around(tokenizer, messages, control)
    else:
        prompt = tokenizer.apply_chat_template(_dicts(messages), add_generation_prompt=True, return_dict=False)
    return prompt + encode_text(tokenizer, continued, control)


def encode_text(tokenizer: Any, text: str, control: re.Pattern[str] | None = None) -> list[int]:
    """Token ids of plain text, none of them a control token: each spelling of one is cut after its first letter.

    ``split_special_tokens`` would not do: it leaves added tokens that are not marked special (<tool_call>).
    """
    control = control or _control_tokens(tokenizer)
    starts = [match.start() for match in control.finditer(text)] if control else []
    cuts = [0, *(start + 1 for start in starts), len(text)]
    parts = [text[begin:end] for begin, end in itertools.pairwise(cuts) if begin < end]
    return [token for part in parts for token in tokenizer.encode(part, add_special_tokens=False)]


@functools.lru_cache(maxsize=64)
def encode_ban(tokenizer: Any, text: str) -> tuple[tuple[int, ...], frozenset[int]]:
    """Token ids of what may not be said, and those that it may begin with, after a space or none."""
    whole, spaced = (tuple(encode_text(tokenizer, start + text)) for start in ("", " "))
    return whole, frozenset((*whole[:1], *spaced[:1]))


@functools.lru_cache(maxsize=16)  # an engine's tokenizer gets no more tokens
def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """Finds where a control token is spelt, overlapping ones too.

    Gemma has added tokens for runs of spaces and line breaks, which are text: so only those that are marked
    special or look like a tag count. A single letter cannot be cut, and is left alone.
    """
    added = tokenizer.added_tokens_decoder.values()
    names = {str(t.content) for t in added if t.special or re.fullmatch(r"<\S+>", t.content)}
    spelt = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if len(name) > 1)
    return re.compile(f"(?={spelt})") if spelt else None


def _encode_around(tokenizer: Any, messages: Sequence[Message], control: re.Pattern[str]) -> list[int]:
    mark = f"content{secrets.token_hex(16)}x"
    masked = [Message(message.role, f"{mark}{number}x") for number, message in enumerate(messages)]
    text = tokenizer.apply_chat_template(_dicts(masked), add_generation_prompt=True, tokenize=False)
    ids: list[int] = []
    for number, part in enumerate(re.split(rf"{mark}(\d+)x", text)):
        # the odd parts are the numbers of the contents, which a template may reorder or leave out
        odd = number % 2 == 1
        ids += (
            encode_text(tokenizer, messages[int(part)].content, control)
            if odd
            else tokenizer.encode(part, add_special_tokens=False)
        )
    return ids


def _dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
