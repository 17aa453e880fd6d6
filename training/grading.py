"""Is this answer right? Rules only, no model, strict where a reply names two things.

A reply is graded by what it commits to: a choice by its letter (or one option's text), a number by what
follows ``####``, ``\\boxed`` or "answer is", free text by finding the reference in a short answer, and the lab's
answers must be the reference itself. Whoever hedges ("B or C"), denies ("not B") or refuses is wrong. The same code
pays rewards, so that training and evaluation cannot drift apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from agents.errors import MeshError
from agents.messages import Reply
from mesh.questions import Question

LONGEST_SHORT_ANSWER = 40  # words; in anything longer, finding the reference proves nothing


def grade(text: str, question: Question) -> bool:
    """Whether ``text`` answers ``question`` rightly.

    Raises:
        ValueError: the question has no reference answer.
    """
    if question.answer is None:
        raise ValueError(f"question {question.id!r} has no answer to grade by")
    given = extract(text, question)
    if given is None:
        return False
    if question.kind in ("choice", "exact"):
        return given == question.answer
    if question.kind == "number":
        return given == _result(question.answer, question.task)
    return any(_holds(given, reference) for reference in _references(question.answer))


def is_right(reply: Reply | MeshError, question: Question) -> bool:
    """Whether a query ended with the right answer; a failed or declined one never did."""
    return isinstance(reply, Reply) and reply.finish in ("stop", "length") and grade(reply.text, question)


def extract(text: str, question: Question) -> str | None:
    """What ``text`` commits to, in one spelling: a letter, a number or formula, or a short text; None for nothing."""
    text = text.strip()
    if _refuses(text):
        return None
    if question.kind == "exact":
        return text
    if question.kind == "choice":
        return _choice(text, question)
    return _result(text, question.task) if question.kind == "number" else _short(text)


_OWN_REFUSAL = re.compile(r"\W*i (?:do not|don'?t|don’t) know!", re.I)
_ANY_REFUSAL = re.compile(
    r"\W*(?:(?:i'?m |i am |i’m )?(?:sorry|afraid)\W+(?:but )?)?(?:that )?"
    r"(?:i (?:(?:really |honestly )?(?:do not|don'?t|don’t) know|(?:can ?not|can'?t|can’t|am unable|am not able)\b"
    r"|(?:have|'ve) no idea|(?:am|'m) not sure)|(?:no idea|unknown|not sure)\W*$)",
    re.I,
)
_COMMITS = re.compile(r"####|\\boxed|\banswer(?: to [^.\n:]{0,60})?(?:\s+is\b|[*_\s]*:)", re.I)


def _refuses(text: str) -> bool:
    """The mesh's own refusal, whatever follows; or another one that is not followed by an answer."""
    return bool(not text or _OWN_REFUSAL.match(text) or (_ANY_REFUSAL.match(text) and not _COMMITS.search(text)))


# ------------------------------------------------------------------------------------- what is marked as the answer

_ANSWER_IS = re.compile(
    r"(?<!wrong )(?<!incorrect )\banswer\b(?:[^.\n:]{0,80}?\b(?:is|are)\b:?|[*_\s]*:)[*_\s]*+(?!not\b)(?=([^\n]+))",
    re.I,
)


def _boxed(text: str) -> Iterator[str]:
    """Contents of every ``\\boxed{...}``, braces balanced, the last one first."""
    opened: list[tuple[int, bool]] = []
    found: list[tuple[int, str]] = []
    for brace in re.finditer(r"(\\f?boxed\s*)?(?<!\\)([{}])", text):
        if brace[2] == "{":
            opened.append((brace.end(), bool(brace[1])))
        elif opened:
            start, box = opened.pop()
            found += [(start, text[start : brace.start()])] if box else []
    return (content for _, content in sorted(found, reverse=True))


def _hashed(text: str) -> Iterator[str]:
    """What follows ``####`` on its line, the last one first."""
    return (line.split("\n", 1)[0] for line in reversed(text.split("####")[1:]))


def _answer_is(text: str) -> Iterator[str]:
    """What follows "the answer is" or "Answer:" up to the end of the sentence, the last one first."""
    for match in reversed([*_ANSWER_IS.finditer(text)]):
        yield re.split(r"\.(?!\d)(?:\s|\W*$)", match[1], maxsplit=1)[0]


# ------------------------------------------------------------------------------------- numbers and formulas

_DIGITS = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)\]}])-(?=[$£€.\\0-9]))?(?:[$£€]\s?(?P<minus>-)?)?"
    rf"(?:\\frac\{{(?P<top>{_DIGITS})\}}\{{(?P<below>{_DIGITS})\}}"
    rf"|(?:(?P<whole>[0-9]+) (?=[0-9]+/))?(?P<digits>{_DIGITS})(?:/(?P<under>[0-9]+)(?![0-9/]))?)"
)
_UNIT = re.compile(r"\s*%?(?:\s(?!(?:pi|sqrt|or|and|to)\b)[a-z]+)*\.?", re.I)
_LEAD = re.compile(r"[\s*_<(]*(?:(?:the )?(?:final )?answer(?: is)?|approximately|about|≈)?[\s*_<(:]*", re.I)
_EITHER = re.compile(rf"{_DIGITS}\s*(?:or|/or)\s*\W?{_DIGITS}")
_PROSE = re.compile(r"(?<![\\\w])[a-z]{2,}[^\w\\]+[a-z]{2,}\b", re.I)
_SPELLINGS = (  # what LaTeX and keyboards write in several ways, and the one that we compare
    (r"\\\\\s*", ";"),
    (r"\\(?:left|right|displaystyle\b|[,!;:\s()])|\{,\}(?=[0-9])|\^\s*\{?\s*\\circ\s*\}?|°", ""),
    (r"\\[dt]frac", r"\\frac"),
    (r"\\(?:text|mathrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}", r" \1"),
    (r"\\([%$])", r"\1"),
    (r"√\s*\(?(\w+)\)?|(?<!\\)\bsqrt\s*\(([^()]*)\)|\\sqrt\s*([0-9a-z])", r"\\sqrt{\1\2\3}"),
    (r"π|(?<![\\a-zA-Z])pi\b", r"\\pi"),
    (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
)


def _result(text: str, task: str) -> str | None:
    """A number as a fraction in lowest terms ("20000", "5/2"), or in maths a formula in one spelling."""
    text = text.replace("−", "-")
    whole = [text] if task == "math" and "\n" not in text else []
    for contents in (_hashed(text), _boxed(text), _answer_is(text), whole):
        for content in contents:
            if _EITHER.search(content):
                return None
            if found := _exactly(content) or (_formula(content) if task == "math" else _leading(content)):
                return found
    numbers = [value for match in _NUMBER.finditer(_latex(text)) if (value := _value(match)) is not None]
    return str(numbers[-1]) if numbers else None


def _value(match: re.Match[str]) -> Fraction | None:
    """The number that was matched; None for one that divides by zero or is absurdly long."""
    if len(match[0]) > 200:
        return None
    top, below = match["top"] or match["digits"], match["below"] or match["under"] or "1"
    if not (divisor := Fraction(below.replace(",", ""))):
        return None
    size = int(match["whole"] or 0) + Fraction(top.replace(",", "")) / divisor
    return -size if match["sign"] or match["minus"] else size


def _exactly(content: str) -> str | None:
    """The number that a text is, but for a unit: ``$1,200.00``, ``x = 3``, ``1/2 cup``."""
    content = re.sub(r"^-\s+", "-", _right_side(_latex(content)).strip(" *_`<>()").removesuffix("$"))
    content = content.removeprefix("$") if content.startswith("$-") else content
    match = _NUMBER.match(content)
    value = _value(match) if match and _UNIT.fullmatch(content, match.end()) else None
    return None if value is None else str(value)


def _leading(content: str) -> str | None:
    """The number with which a text begins, or the part of it after the last "="."""
    content = _LEAD.sub("", _latex(content).rsplit("=", 1)[-1], count=1)
    match = _NUMBER.match(content)
    value = _value(match) if match else None
    return None if value is None else str(value)


def _right_side(content: str) -> str:
    """The part after the last "=" where the left is only arithmetic or one variable."""
    left, equals, right = content.rpartition("=")
    return right if equals and re.fullmatch(r"[$\s]*[a-zA-Z]\s*|[^a-zA-Z]*", left) else content


def _latex(content: str) -> str:
    for pattern, spelling in _SPELLINGS:
        content = re.sub(pattern, spelling, content)
    return content


def _formula(content: str) -> str | None:
    """A formula without blanks and in one spelling: ``\\dfrac12 \\pi`` and ``1/2 pi`` are ``\\frac{1}{2}\\pi``."""
    inside = re.findall(r"(?<!\\)\$([^$]+)(?<!\\)\$", content)
    if not inside and _PROSE.search(content):
        return None
    content = _right_side(_latex(inside[-1] if inside else content))
    content = re.sub(r"\s+|[$`]|\*\*|\*(?=\\)|\.+\s*$", "", content)
    content = re.sub(r"(?<![\w}])([0-9]+)/([0-9]+)", r"\\frac{\1}{\2}", content)
    return re.sub(r"^\((\w)\)$", r"\1", content) or None


# ------------------------------------------------------------------------------------- choices

_OPEN = r"[\s*_>#\"'`(\[{$\\]*(?:text\{)?"
_LED = re.compile(rf"{_OPEN}(?:(?:option|choice|letter)\b{_OPEN})?", re.I)
_CUE = re.compile(
    r"(?:(?:(?<!wrong )(?<!incorrect )\banswer|\b(?:correct|right|best|my) (?:option|choice|one|letter))\b"
    r"(?:(?:(?!not\b|n['’]t)[^.\n:]){0,80}?\b(?:is|be)\b)?[*_\s]*:?"
    rf"|\b(?:choose|pick|select|go (?:with|for))\b|\\boxed\s*\{{)\s*(?:(?:the )?(?:option|choice|letter)\b)?{_OPEN}$",
    re.I,
)
_VERDICT = re.compile(r"[)\].*:]*\s+is (?:the )?(?:most |only )?(?:correct|right|best|true|answer)\b", re.I)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:never|nor|neither|except|vitamin|(?:can)?not(?: be)?|(?:wrong|incorrect) (?:answer|option)(?: is)?)"
    r"|n['’]t(?: be)?)\W+(?:option\W+)?$",
    re.I,
)
_DENIED_AFTER = re.compile(
    r"[)\].:*]*\s+(?:cannot\b|(?:is|was|are|can|could)(?:\s+not\b|n['’]t\b|\s+(?:wrong|incorrect|false)\b))", re.I
)
_CLOSED = re.compile(r"\s*$|\s*\n|[).:,;!?\]}\"'`*_$]+(?=\s|$)|\s+[-–—]")
_NOT_A_WORD = re.compile(r"\s+(?:is|because|since)\b")
_JOINED = re.compile(r"[^\S\n]*[)\].*,/&]*[^\S\n]*(?:(?:or|and)\b)?[^\S\n]*(?:(?:option|choice)\b)?[ (*]*", re.I)


@dataclass(frozen=True, slots=True)
class _Mention:
    """A letter that a reply names: ``firm`` as its answer, ``first`` at its very beginning."""

    letter: str
    end: int
    first: bool
    firm: bool
    starts_line: bool


def _choice(text: str, question: Question) -> str | None:
    """The letter that a reply commits to; None where it names none, or several."""
    options = {x: _words(option) for x, option in zip(question.letters, question.choices or (), strict=True)}
    said, whole = _words(text), _words(text, without=())
    same = {x for x, c in zip(options, question.choices or (), strict=True) if whole == _words(c, without=())}
    if len(same) == 1 and len("".join(whole)) > 1:
        return same.pop()
    mentions = _mentions(text, question.letters)
    if _repeats_options(mentions):
        return _only({m.letter for m in mentions if m.firm and not m.first})
    firm = {m.letter for m in mentions if m.firm}
    return _only(firm or _named(said, options) or {m.letter for m in mentions})


def _mentions(text: str, letters: str) -> list[_Mention]:
    """Every option's letter that stands alone and is not denied; "A" and "I" only where they are no words."""
    found: list[_Mention] = []
    for match in re.finditer(rf"(?<![\w'’.\-])[{letters}{letters.lower()}](?![\w'’])", text):
        letter, before, after = match[0].upper(), text[max(match.start() - 160, 0) : match.start()], text[match.end() :]
        first = match.start() == len(before) and bool(_LED.fullmatch(before))
        stated = bool(_CUE.search(before) or _VERDICT.match(after))
        joined = bool(found and _JOINED.fullmatch(text, found[-1].end, match.start()))
        if not _is_letter(match[0], after, first or stated, letters):
            continue
        if _DENIED_BEFORE.search(before) or _DENIED_AFTER.match(after):
            continue
        starts_line = bool(_LED.fullmatch(before.rsplit("\n", 1)[-1]))
        found.append(_Mention(letter, match.end(), first, first or stated or (joined and found[-1].firm), starts_line))
    return found


def _is_letter(written: str, after: str, firm: bool, letters: str) -> bool:
    """Whether what looks like an option's letter is one, and not the article, the pronoun or a variable."""
    closed = bool(_CLOSED.match(after))
    if written.islower():
        return firm and closed
    beside = re.match(rf"\s*(?:,|/|&|\b(?:and|or)\b)\s*\(?[{letters}]\b", after)
    return closed or written not in "AI" or bool(_NOT_A_WORD.match(after) or beside)


def _repeats_options(mentions: list[_Mention]) -> bool:
    """Whether a reply begins like the list of options: a line with one letter, then a line with the next."""
    lines = [m for m in mentions if m.starts_line][:2]
    return len(lines) == 2 and lines[0].first and ord(lines[1].letter) == ord(lines[0].letter) + 1


def _named(said: list[str], options: Mapping[str, list[str]]) -> set[str]:
    """Options whose words stand in the reply, but for those that are only a part of a longer one."""
    here = {x for x, words in options.items() if words and _affirmed(said, words)}
    longer = {x: [options[y] for y in here if len(options[y]) > len(options[x])] for x in here}
    return {x for x in here if not any(_affirmed(other, options[x]) for other in longer[x])}


def _only(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None


# ------------------------------------------------------------------------------------- free text

_COUNTS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_AS_DIGITS = {word: str(n) for n, word in enumerate([*_COUNTS.split(), "seventeen", "eighteen", "nineteen", "twenty"])}
_HEDGES = frozenset({"or", "nor", "not", "neither", "either", "never", "isn", "wasn", "aren", "except"})


def _short(text: str) -> str | None:
    """The short answer: what is marked as one, else the first line."""
    tagged = re.findall(r"<answer>(.*?)</answer>", text, re.S | re.I)
    marked = tagged[-1:] or [*_hashed(text), *_boxed(text), *_answer_is(text)]
    found = next((m for m in marked if m.strip()), text).strip()
    return found.split("\n", 1)[0].strip() or None


def _references(answer: str) -> Iterator[str]:
    """Every accepted spelling: aliases stand between semicolons, what is in parentheses may be left out."""
    for alias in answer.split(";"):
        yield alias
        if (bare := re.sub(r"\([^()]*\)", " ", alias)).strip() and bare != alias:
            yield bare


def _holds(given: str, reference: str) -> bool:
    """Whether a short answer names the reference: its words side by side, in any order that keeps its numbers'."""
    said, wanted = _words(given), _words(reference)
    if len(wanted) > 1 and wanted[-1] == "disambiguation":  # from the title of an encyclopaedia's page
        wanted.pop()
    if len(wanted) > 1 and wanted[0] in ("in", "at", "on", "by"):
        wanted.pop(0)
    if not wanted:
        return given.strip().casefold() == reference.strip().casefold() != ""
    return said == wanted or (len(said) <= LONGEST_SHORT_ANSWER and _affirmed(said, wanted, any_order=True))


def _affirmed(said: list[str], wanted: list[str], any_order: bool = False) -> bool:
    """Whether ``wanted`` stands in ``said``, and no "or" or "not" right beside it."""
    for at in range(len(said) - len(wanted) + 1):
        end = at + len(wanted)
        window = said[at:end]
        moved = any_order and sorted(window) == sorted(wanted) and _numerals(window) == _numerals(wanted)
        if (window == wanted or moved) and not _HEDGES.intersection(said[max(at - 2, 0) : at] + said[end : end + 1]):
            return True
    return False


def _numerals(words: list[str]) -> list[str]:
    return [word for word in words if word.isdigit()]


def _words(text: str, without: Collection[str] = ("a", "an", "the")) -> list[str]:
    """Lower-case words without accents, punctuation and articles; small counts as digits."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", unicodedata.normalize("NFKD", text).casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    return [_AS_DIGITS.get(word, word) for word in re.findall(r"[^\W_]+", text) if word not in without]
