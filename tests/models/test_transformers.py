"""The transformers engine on tiny random models: that batching changes nothing, and that it stops when told to."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

from agents.engines import batching
from agents.engines.base import Setup
from agents.engines.batching import TextStream
from agents.engines.chat import encode_chat
from agents.engines.models import load_tokenizer
from agents.engines.transformers import TransformersEngine
from agents.errors import AdapterError, ConfigError, EngineError, QueryTooLong
from agents.messages import Message, Piece, Request, ScoreRequest, Scores
from tests.tiny import tiny_model

TEXTS = ("Hi", "What is the capital of France?", "a" * 90, "Zwölf Boxkämpfer jagen Viktor", "1 + 1 =", "x")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@asynccontextmanager
async def started(folder: Path, **options: Any) -> AsyncIterator[TransformersEngine]:
    setup = Setup("tiny", local_name=folder.name, models_dir=folder.parent)
    engine = TransformersEngine(setup, **{"dtype": "float32", "device": "cpu"} | options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def request(text: str, max_tokens: int = 30, **more: Any) -> Request:
    return Request(("q", 1), 1, (Message("user", text),), max_tokens, **more)


async def draft(engine: TransformersEngine, asked: Request, delay_s: float = 0.0) -> list[Piece]:
    await asyncio.sleep(delay_s)
    return [piece async for piece in engine.generate(asked)]


def greedy(folder: Path, text: str, count: int) -> tuple[list[int], float]:
    """The naive way: the whole text through the model for every token. Token ids and their log-probability."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = encode_chat(load_tokenizer(str(folder)), (Message("user", text),))
    tokens, total = list[int](), 0.0
    with torch.inference_mode():
        while len(tokens) < count and (not tokens or tokens[-1] != model.config.eos_token_id):
            logprobs = model(torch.tensor([prompt + tokens])).logits[0, -1].log_softmax(-1)
            tokens.append(int(logprobs.argmax()))
            total += float(logprobs.max())
    return tokens, total


def test_batching_changes_nothing(folder: Path) -> None:
    """Drafts of different lengths that join and leave at different times are what each is alone."""

    async def main() -> None:
        async with started(folder, max_batch=4) as engine:
            asked = [request(text, max_tokens=10 + 9 * n) for n, text in enumerate(TEXTS)]
            alone = [await draft(engine, each) for each in asked]
            together = await asyncio.gather(*(draft(engine, each, 0.01 * n) for n, each in enumerate(asked)))
        for one, other, text in zip(alone, together, TEXTS, strict=True):
            assert [piece.text for piece in one] == [piece.text for piece in other]
            assert [piece.logprob for piece in other] == pytest.approx([piece.logprob for piece in one], abs=1e-4)
            tokens, logprob = greedy(folder, text, len(one))
            expected = load_tokenizer(str(folder)).decode(tokens, skip_special_tokens=True)
            assert "".join(piece.text for piece in one).replace("\ufffd", "") == expected.replace("\ufffd", "")
            assert sum(piece.logprob or 0 for piece in one) == pytest.approx(logprob, abs=1e-3)

    asyncio.run(main())


def test_prompts_and_scores_read_together_are_what_each_is_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of different lengths, in groups of a few: the longest alone is more than is read at once."""
    monkeypatch.setattr(batching, "AT_ONCE", 200)
    asked = [request(text, 12, temperature=float(n % 2), seed=n) for n, text in enumerate(TEXTS)]
    scored = [ScoreRequest(("q", 1), 1, (Message("user", text),), ("ab" * n, "")) for n, text in enumerate(TEXTS)]

    async def main() -> None:
        async with started(folder) as engine:
            alone = [await draft(engine, each) for each in asked], [await engine.score(each) for each in scored]
            read, forward = list[int](), engine._model.forward
            engine._model.forward = lambda *a, **more: read.append(len(more["input_ids"])) or forward(*a, **more)
            drafts = await asyncio.gather(*(draft(engine, each) for each in asked))
            scores = await asyncio.gather(*(engine.score(each) for each in scored))
        assert max(read) > 1  # some were read together
        for one, other in zip(alone[0], drafts, strict=True):
            assert [piece.text for piece in other] == [piece.text for piece in one]
            assert [piece.logprob for piece in other] == pytest.approx([piece.logprob for piece in one], abs=1e-4)
        for before, now in zip(alone[1], scores, strict=True):
            assert now.logprobs == pytest.approx(before.logprobs, abs=1e-4)
            assert now.prompt_tokens == before.prompt_tokens

    asyncio.run(main())


def test_who_is_read_together_fits() -> None:
    assert [*batching.together([], len)] == []
    long, short = "x" * (batching.AT_ONCE // 2), "x" * (batching.AT_ONCE // 8)
    assert [len(group) for group in batching.together([long, *[short] * 9, long * 3, short], len)] == [2, 8, 1, 1]


def test_pieces_of_several_tokens(folder: Path) -> None:
    """The first comes alone; the text, its tokens and their log-probability are the same."""

    async def main() -> None:
        async with started(folder) as engine:
            ones = [await draft(engine, request(text, 30)) for text in TEXTS]
        async with started(folder, stream_interval=8) as engine:
            more = await asyncio.gather(*(draft(engine, request(text, 30)) for text in TEXTS))
        for one, eight in zip(ones, more, strict=True):
            assert "".join(piece.text for piece in eight) == "".join(piece.text for piece in one)
            assert sum(piece.logprob or 0 for piece in eight) == pytest.approx(
                sum(p.logprob or 0 for p in one), abs=1e-3
            )
            assert [piece.tokens for piece in eight[:-1]] == [1, *[8] * (len(eight) - 2)]
            assert sum(piece.tokens for piece in eight) == len(one)
            assert (eight[-1].finish, eight[0].prompt_tokens) == (one[-1].finish, one[0].prompt_tokens)

    asyncio.run(main())


def test_a_cancelled_draft_leaves_the_batch_and_the_others_go_on(folder: Path) -> None:
    async def main() -> None:
        async with started(folder) as engine:
            alone = await draft(engine, request("Hi", 400))
            other = asyncio.create_task(draft(engine, request("Hi", 400)))
            async with aclosing(engine.generate(request("a" * 90, 400))) as pieces:
                for _ in range(5):
                    await anext(pieces)
                assert engine.running() == 2
            assert [piece.text for piece in await other] == [piece.text for piece in alone]
            assert engine.running() == 0

    asyncio.run(main())


@pytest.mark.parametrize("tails", [("ab",), ("ab", ""), ("a", "bab", "ab"), ("a", "b")])
def test_scores_are_sums_of_the_naive_log_probabilities(folder: Path, tails: tuple[str, ...]) -> None:
    """Of one continuation, and of several whose prompt is read but once; beside another, longer prompt."""
    asked = [ScoreRequest(("q", 1), 1, (Message("user", text),), tails) for text in ("Hi", "Hi there")]

    async def main() -> list[Scores]:
        async with started(folder) as engine:
            return await asyncio.gather(*(engine.score(each) for each in asked))

    tokenizer, model = load_tokenizer(str(folder)), Qwen2ForCausalLM.from_pretrained(folder).eval()
    for each, scores in zip(asked, asyncio.run(main()), strict=True):
        totals = []
        for tail in tails:
            prompt, total = encode_chat(tokenizer, each.messages), 0.0
            for token in tokenizer.encode(tail):
                total += model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)[token].item()
                prompt.append(token)
            totals.append(total)
        assert scores.logprobs == pytest.approx(totals, abs=1e-4)


def test_a_banned_sentence_does_not_come(folder: Path) -> None:
    async def main() -> None:
        async with started(folder) as engine:
            text = "".join(piece.text for piece in await draft(engine, request("Hi there", 6)))
            banned = "".join(piece.text for piece in await draft(engine, request("Hi there", 6, ban=text)))
            assert banned
            assert banned[0] != text[0]
            # where the answer goes on, only the whole sentence is banned: its last token must be another
            prompt, sentence = text[:2], text[2:]
            going_on = "".join(
                piece.text for piece in await draft(engine, request("Hi there", 4, continued=prompt, ban=sentence))
            )
            assert going_on[: len(sentence) - 1] == sentence[:-1]
            assert going_on != sentence

    asyncio.run(main())


def test_temperature_and_seed(folder: Path) -> None:
    async def main() -> None:
        async with started(folder) as engine:
            drafts = [await draft(engine, request("Hi", temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
            texts = ["".join(piece.text for piece in pieces) for pieces in drafts]
            assert texts[0] == texts[1] != texts[2]

    asyncio.run(main())


def test_the_share_of_a_token_is_its_probability(folder: Path) -> None:
    """500 first tokens at temperature 1: the likeliest is as frequent as it is likely, within 4 sigma."""

    async def main() -> None:
        async with started(folder, max_batch=64) as engine:
            (best,) = await draft(engine, request("Hi", 1))
            asked = (request("Hi", 1, temperature=1.0, seed=seed) for seed in range(500))
            drafts = await asyncio.gather(*(draft(engine, each) for each in asked))
        p = math.exp(best.logprob or 0)
        share = sum(pieces[0].logprob == pytest.approx(best.logprob, abs=1e-4) for pieces in drafts) / 500
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 500)

    asyncio.run(main())


@pytest.mark.parametrize(("name", "value"), [("max_batch", 0), ("max_batch", 2.5), ("stream_interval", True)])
def test_an_option_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"'tiny'.*{name}: {value}; it must be a whole number >= 1"):
        TransformersEngine(Setup("tiny"), **{name: value})  # type: ignore[arg-type]


def test_too_long_to_score(folder: Path) -> None:
    async def main() -> None:
        async with started(folder, context=64) as engine:
            with pytest.raises(QueryTooLong, match="64"):
                await engine.score(ScoreRequest(("q", 1), 1, (Message("user", "Hi"),), ("a" * 60,)))

    asyncio.run(main())


def test_a_failing_step_fails_its_drafts_and_no_later_ones(folder: Path) -> None:
    async def main() -> None:
        async with started(folder) as engine:
            forward, engine._model.forward = engine._model.forward, None
            with pytest.raises(EngineError, match="NoneType"):
                await draft(engine, request("Hi"))
            engine._model.forward = forward
            assert await draft(engine, request("Hi"))

    asyncio.run(main())


def test_closing_ends_what_runs(folder: Path) -> None:
    async def main() -> None:
        async with started(folder) as engine:
            pieces = engine.generate(request("Hi", 400))
            await anext(pieces)
            await engine.close()
            with pytest.raises(EngineError, match="closed"):
                async for _ in pieces:
                    pass
            assert not await engine.healthy()
            with pytest.raises(EngineError, match="not running"):
                await draft(engine, request("Hi"))

    asyncio.run(main())


def test_an_adapter_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with started(folder) as engine:
            with pytest.raises(AdapterError, match=r"adapter_config.json is missing"):
                await engine.load_adapter(tmp_path)
            assert await draft(engine, request("Hi"))

    asyncio.run(main())


def test_an_adapter_changes_the_answers_and_can_be_taken_away(folder: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")

    def adapter(name: str, seed: int) -> Path:
        torch.manual_seed(seed)
        config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        peft.get_peft_model(Qwen2ForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path / name)
        return tmp_path / name

    async def main() -> None:
        async with started(folder) as engine:

            async def text() -> str:
                return "".join(piece.text for piece in await draft(engine, request("Hi")))

            bare = await text()
            await engine.load_adapter(adapter("one", 1))
            one = await text()
            await engine.load_adapter(adapter("two", 2))
            two = await text()
            assert len({bare, one, two}) == 3
            await engine.load_adapter(None)
            assert await text() == bare
            await engine.load_adapter(tmp_path / "one")
            assert await text() == one

    asyncio.run(main())


def test_letters_of_several_tokens_come_whole(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))  # one token a byte
    stream, text = TextStream(tokenizer), "aé漢😀b"
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert pieces == ["a", "", "é", "", "", "漢", "", "", "", "😀", "b"]
    stream, tokens = TextStream(tokenizer), tokenizer.encode(text)
    assert [stream.push(*tokens[at : at + 5]) for at in range(0, 11, 5)] == ["", "aé漢😀", "b"]
    stream.push(tokenizer.encode("é")[0])
    assert stream.end() == "\ufffd"


def test_a_tokenizer_of_its_own_keeps_its_ways(folder: Path, tmp_path: Path) -> None:
    """One character a token, beside a Qwen2 model: AutoTokenizer would put Qwen2's pre-tokenizer in."""
    letters = {letter: number for number, letter in enumerate("0123456789+= ?")}
    backend = Tokenizer(models.WordLevel(letters | {"<eos>": len(letters)}, unk_token="?"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse()
    own = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="?")
    Qwen2ForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    own.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.encode("12 + 3=") == [1, 2, 12, 10, 12, 3, 11]
    # without a chat template: as it stands; "<eos>" is five unknown letters, not the end
    assert encode_chat(loaded, (Message("user", "1<eos>2="),), "3") == [1, 13, 13, 13, 13, 13, 2, 11, 3]
