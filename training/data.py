"""Questions by name: a local file, else a dataset of the hub that the paper trains or tests on (DiSRouter, section 4).

Of a local file a fifth is validation, by a hash of the ids. Of a hub's dataset the parts are its own where their
answers are public; where it has no such validation part, that is again a fifth of its train part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, TypeAlias

from agents.errors import QueryError
from mesh.questions import Question, find_questions, read_questions, split
from training.lab_questions import Part

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where it is on the hub, what its parts are called there (None: a share of train), and how a row becomes one of
    ours; a row without an answer becomes None.
    """

    path: str
    config: str | None
    splits: Mapping[Part, str | None]
    read: Callable[[Row, str], Question | None]


def _choice(id: str, task: str, text: str, options: Iterable[str], place: int) -> Question | None:
    options = tuple(options)
    if not 0 <= place < len(options):
        return None
    return Question(id, text, task, options, ascii_uppercase[place])


def _gsm8k(row: Row, id: str) -> Question | None:
    solution, _, answer = row["answer"].rpartition("####")
    return Question(id, row["question"], "gsm8k", None, answer.strip().replace(",", ""), solution.strip())


def _labelled(task: str, question: str) -> Callable[[Row, str], Question | None]:
    """ARC's and OpenBookQA's rows: options with labels of their own, such as A to D, or 1 to 4."""

    def read(row: Row, id: str) -> Question | None:
        labels = list(row["choices"]["label"])
        place = labels.index(row["answerKey"]) if row["answerKey"] in labels else -1
        return _choice(row.get("id", id), task, row[question], row["choices"]["text"], place)

    return read


def _mmlu(row: Row, id: str) -> Question | None:
    return _choice(id, "mmlu", row["question"], row["choices"], int(row["answer"]))


def _race(row: Row, id: str) -> Question | None:
    text = f"{row['article'].strip()}\n\n{row['question']}"
    return _choice(id, "race", text, row["options"], ascii_uppercase.find(row["answer"]))


def _cosmosqa(row: Row, id: str) -> Question | None:
    options = [row[f"answer{number}"] for number in range(4)]
    return _choice(row.get("id", id), "cosmosqa", f"{row['context']}\n\n{row['question']}", options, int(row["label"]))


def _hellaswag(row: Row, id: str) -> Question | None:
    place = int(row["label"]) if str(row["label"]).strip() else -1
    return _choice(id, "hellaswag", f"How does this go on?\n\n{row['ctx']}", row["endings"], place)


def _headqa(row: Row, id: str) -> Question | None:
    numbers = [int(answer["aid"]) for answer in row["answers"]]
    place = numbers.index(int(row["ra"])) if int(row["ra"]) in numbers else -1
    return _choice(id, "headqa", row["qtext"], [answer["atext"] for answer in row["answers"]], place)


def _drop(row: Row, id: str) -> Question | None:
    spans = row["answers_spans"]["spans"]
    text = f"{row['passage'].strip()}\n\n{row['question']}"
    return Question(row.get("query_id", id), text, "drop", None, spans[0]) if spans else None


def _squad(row: Row, id: str) -> Question | None:
    found = row["answers"]["text"]
    text = f"{row['context'].strip()}\n\n{row['question']}"
    return Question(row.get("id", id), text, "squad", None, found[0]) if found else None


_OWN: dict[Part, str | None] = {"train": "train", "validation": "validation", "test": "test"}
_NO_VALIDATION: dict[Part, str | None] = {"train": "train", "validation": None, "test": "test"}
_NO_TEST: dict[Part, str | None] = {"train": "train", "validation": None, "test": "validation"}
DATASETS: dict[str, Dataset] = {
    "gsm8k": Dataset("openai/gsm8k", "main", _NO_VALIDATION, _gsm8k),
    "arc": Dataset("allenai/ai2_arc", "ARC-Challenge", _OWN, _labelled("arc", "question")),
    "mmlu": Dataset("cais/mmlu", "all", {**_OWN, "train": "auxiliary_train"}, _mmlu),
    "race": Dataset("ehovy/race", "all", _OWN, _race),
    "openbookqa": Dataset("allenai/openbookqa", "main", _OWN, _labelled("openbookqa", "question_stem")),
    "drop": Dataset("ucinlp/drop", None, _NO_TEST, _drop),
    "cosmosqa": Dataset("allenai/cosmos_qa", None, _NO_TEST, _cosmosqa),
    # out of domain in the paper: nobody is trained on them
    "squad": Dataset("rajpurkar/squad", None, _NO_TEST, _squad),
    "hellaswag": Dataset("Rowan/hellaswag", None, _NO_TEST, _hellaswag),
    "headqa": Dataset("dvilares/head_qa", "en", _OWN, _headqa),
}


def rows(name: str, part: Part, load: Callable[..., Iterable[Row]] | None = None) -> list[Question]:
    """The questions of one part of ``name``: a file, a name in MESH_DATA, or one of ``DATASETS``.

    Args:
        load: what loads a dataset from the hub; default: ``datasets.load_dataset``.

    Raises:
        QueryError: there is no such file or dataset, or the hub cannot be reached; says what to give instead.
    """
    try:
        path = find_questions(name)
    except QueryError as error:
        if name not in DATASETS:
            raise QueryError(f"{error}; on the hub are {', '.join(DATASETS)}") from None
        return list(_from_hub(name, part, load or _load))
    if part == "test":
        raise QueryError(f"data: {name!r} is a file, which has a train and a validation part only")
    return [question for question in read_questions(path)[0] if split(question.id) == part]


def _from_hub(name: str, part: Part, load: Callable[..., Iterable[Row]]) -> Iterator[Question]:
    dataset = DATASETS[name]
    official = dataset.splits[part]
    shared = dataset.splits["validation"] is None and part != "test"  # train and validation are parts of one
    try:
        found = load(dataset.path, dataset.config, split=official or "train")
    except Exception as error:  # whatever it is: no network, no such dataset, a broken cache
        why = str(error).partition("\n")[0]
        raise QueryError(
            f"data: {name!r} is {dataset.path} on the hub, which cannot be had ({type(error).__name__}: {why}); give a "
            "local file of questions with --data FILE, or put one of that name into the folder MESH_DATA"
        ) from None
    for number, row in enumerate(found):
        question = dataset.read(row, f"{name}-{official or 'train'}-{number}")
        if question is not None and (not shared or split(question.id) == part):
            yield question


def _load(path: str, config: str | None, split: str) -> Iterable[Row]:
    import datasets

    found: Iterable[Row] = datasets.load_dataset(path, config, split=split)
    return found
