"""Grading: what a reply commits to, and the replies that only look as if they did."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.questions import Question
from training.grading import extract, grade

SUN = Question("c", "What warms the Earth?", choices=("a plant", "the Sun", "the Moon", "train station"), answer="B")
FIVE = Question("f", "Which?", choices=("bus", "bus depot", "E. coli", "taxi", "beach"), answer="E")
BLOOD = Question("b", "Which blood?", choices=("B", "A", "AB", "O"), answer="A")
LONG = Question("l", "Which?", choices=tuple(f"option {n}" for n in range(21, 31)), answer="I")


def number(answer: str, task: str = "gsm8k") -> Question:
    return Question("n", "How many?", task=task, answer=answer)


def fact(answer: str) -> Question:
    return Question("t", "Who?", task="natural_qa", answer=answer)


@pytest.mark.parametrize(
    "text",
    [
        "B", "B.", "(B)", "B)", "b", "b)", "(b)", "**B**", "B\n", " B: the Sun", "[B]", "`B`", "B - the Sun",
        "B, I think",
        "Answer: B", "answer: b", "**Answer:** B", "The answer is (B)", "The answer is B.",
        "The correct answer is: **B**",
        "The answer is b.", "Option B", "option (B)", r"\boxed{B}", r"So it is $\boxed{\text{B}}$.", "B the Sun",
        "B is correct",
        "B because it shines", "The correct option is B because it shines.", "I would choose option B.",
        "I'd go with B",
        "The Sun", "the sun.", "It is the Sun, I believe.", "It must be B", "It's (B).",
        "A plant uses light, so the answer is B.", "A is wrong. B is correct.", "It is not A but B.",
        "not the Moon, but the Sun",
        "B\n\nA is a living thing, C reflects light, D is a building.", "B. the Sun\n\nA. is alive, C. is cold.",
        "Let us see. (A) is alive. (C) is cold. (D) is far. The answer is (B).",
        "A. a plant\nB. the Sun\nC. the Moon\nD. train station\nThe answer is B.",
        "The wrong answer is A. The right answer is B.", "I don't know the distance, but the answer is B.",
        "The final answer to the question is B", "<answer>B</answer>", "Answer\n\nB", "B\nB\nB",
    ],
)  # fmt: skip
def test_a_reply_that_chooses_b_is_right(text: str) -> None:
    assert extract(text, SUN) == "B"
    assert grade(text, SUN)


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "B or C", "B and C", "B, C", "A/B", "B C", "Both A and B", "A and B are correct",
        "The answer is A or B.",
        "The answer is B or maybe not; the answer is C.", "B. No wait, the answer is C.", "not B", "It is not B",
        "It isn't B.",
        "B is wrong.", "B is not correct", "The answer cannot be B", "I don't know!", "I don't know! B",
        "I do not know.",
        "I'm sorry, but I cannot answer that: B is a guess", "A plant", "A plant absorbs light.", "Be careful",
        "Because",
        "A. a plant\nB. the Sun\nC. the Moon\nD. train station", "A\nB\nC\nD", "The Moon", "The Sun or the Moon",
        "Not the Sun",
        "Neither the Sun nor the Moon", "F", "E", "Vitamin B", r"\boxed{C}", "C. the Sun is B", "Plan ahead", "ABCD",
        "U.S.B.",
        "the wrong answer is B",
    ],
)  # fmt: skip
def test_a_reply_that_does_not_choose_b_alone_is_wrong(text: str) -> None:
    assert not grade(text, SUN)


@pytest.mark.parametrize(
    ("text", "question", "letter"),
    [
        ("A plant grows.", SUN, "A"),  # option A's own words
        ("A", SUN, "A"), ("A.", SUN, "A"), ("A a plant", SUN, "A"), ("A is the one", SUN, "A"),
        ("A because it grows", SUN, "A"),
        ("A great question indeed", SUN, None), ("The answer is a matter of taste", SUN, None),
        ("E. coli", FIVE, "C"), ("It is E. coli", FIVE, "C"), ("E", FIVE, "E"), ("e.g. water", FIVE, None),
        ("I think of the bus depot", FIVE, "B"), ("bus", FIVE, "A"), ("You take the bus to the beach", FIVE, None),
        ("A", BLOOD, "A"), ("B", BLOOD, "B"), ("AB", BLOOD, "C"), ("The answer is A", BLOOD, "A"), ("O", BLOOD, "D"),
        ("I", LONG, "I"), ("I think it is hard", LONG, None), ("I think it is J", LONG, "J"),
        ("I. option 29", LONG, "I"),
    ],
)  # fmt: skip
def test_letters_words_and_options(text: str, question: Question, letter: str | None) -> None:
    assert extract(text, question) == letter


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("#### 72", "72"), ("48 + 24 = 72\n#### 72", "72"), ("#### $72.00", "72"), ("#### 72.0", "72"),
        ("#### 1,234", "1234"),
        ("#### -7", "-7"), ("#### −7", "-7"), ("#### -$5", "-5"), ("#### $-5", "-5"), ("#### - 5", "-5"),
        ("#### 50%", "50"),
        ("#### 3/4", "3/4"), ("#### 6/8", "3/4"), ("#### 0.75", "3/4"), ("#### .5", "1/2"), ("#### 1 1/2", "3/2"),
        ("#### 72 dollars", "72"), ("#### **72**", "72"), ("#### <72>", "72"), ("#### x = 72", "72"),
        ("#### 48/2 = 24", "24"),
        ("#### The answer is 72", "72"), ("#### 5\nWait.\n#### 6", "6"), ("#### 72\nThat took 3 steps.", "72"),
        (r"so \boxed{72} it is, after 3 steps", "72"), (r"\boxed{\frac{3}{4}}", "3/4"), (r"\boxed{\$1{,}200}", "1200"),
        (r"\boxed{40,\!320}", "40320"), (r"\boxed{5} no: \boxed{6}", "6"), (r"\boxed{72", "72"),
        ("The answer is 72. It took 3 steps.", "72"), ("The answer is: **72**", "72"), ("Answer: 72", "72"),
        ("The answer is $48 + $24 = $72.", "72"), ("The answer is not 5. She has 8", "8"),
        ("The answer is 5. No, the answer is 6.", "6"),
        ("She has 10-7 = 3 apples.", "3"), ("She has 10-7", "7"), ("It costs $5.50.", "11/2"), ("1, 2, 3", "3"),
        ("20-30", "30"),
        ("It is 1,000,000 in all", "1000000"), ("### Step 1\n#### Step 2: add\nThe sum is 9.", "9"), ("####", None),
        ("#### 12 or 13", None), ("I don't know!", None), ("I don't know! #### 72", None),
        ("I don't know yet.\n#### 72", "72"),
        ("I cannot answer this in 5 words", None), ("nothing", None), ("1/0", None), ("", None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_the_number_that_a_reply_gives(text: str, result: str | None) -> None:
    assert extract(text, number("72")) == result


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("#### 20000", "20,000", True), ("#### 20,000.00", "20000", True), ("#### 200", "20,000", False),
        ("#### 7", "-7", False), ("#### 72.5", "72", False), ("72 73", "72", False), ("", "0", False),
        ("zero", "0", False),
        ("#### 72", "48 + 24 = 72\n#### 72", True), ("I don't know!", "0", False),
    ],
)  # fmt: skip
def test_numbers_are_compared_as_numbers(text: str, answer: str, right: bool) -> None:
    assert grade(text, number(answer)) is right


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"#### 25\pi/2", r"thus $\boxed{\frac{25\pi}{2}}$.", False),  # equal, but we compare spellings, not values
        (r"#### \dfrac{25 \pi}{2}", r"thus $\boxed{\frac{25\pi}{2}}$.", True),
        (r"#### 3/4", r"\boxed{\frac34}", True), ("#### 0.75", r"\boxed{\tfrac{3}{4}}", True),
        (r"\boxed{0.75}", "3/4", True),
        ("#### -1/2", r"\boxed{-\frac{1}{2}}", True), ("#### 62", r"\boxed{62^\circ}", True),
        ("#### Sunday", r"\boxed{\text{Sunday}}", True),
        (r"#### 2√13", r"\boxed{2 \sqrt{13}}", True), ("#### 2 sqrt(13)", r"\boxed{2 \sqrt{13}}", True),
        ("#### 10pi", r"\boxed{10\pi}", True),
        ("#### 10", r"\boxed{10\pi}", False), ("#### (-4, 4)", r"\boxed{(-4,4)}", True),
        ("#### (4, -4)", r"\boxed{(-4,4)}", False),
        (r"$\boxed{y = -2x + 1}$", r"\boxed{y=-2x+1}", True), ("#### -2x + 1", r"\boxed{y=-2x+1}", True),
        ("#### 0", r"\boxed{2x + z - 5 = 0}", False), ("The answer is $\\frac{3}{10}$.", r"\boxed{\frac{3}{10}}", True),
        (r"The answer is 12 square units.", r"\boxed{12}", True), ("P", r"\boxed{\text{(P)}}", True),
        ("#### $5.50", r"\boxed{\$5.50}", True),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{\begin{pmatrix} 1\\2\end{pmatrix}}", True),
        ("So the result is 42.", r"\boxed{42}", True), ("#### 56%", r"\boxed{0.56 = 56\%}", True),
        (r"\frac{25\pi}{2}", r"\frac{25 \pi}{2}", True),
    ],
)  # fmt: skip
def test_formulas(text: str, answer: str, right: bool) -> None:
    assert grade(text, number(answer, "math")) is right


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("Neil Armstrong", "Neil Armstrong", True), ("neil armstrong.", "Neil Armstrong", True),
        ("Armstrong", "Neil Armstrong", False),
        ("It was Neil Armstrong in 1969.", "Neil Armstrong", True), ("Lance Armstrong", "Neil Armstrong", False),
        ("The answer is Neil Armstrong.", "Neil Armstrong", True),
        ("<answer>Neil Armstrong</answer> or so", "Neil Armstrong", True),
        ("Not Neil Armstrong", "Neil Armstrong", False), ("Neil Armstrong or Buzz Aldrin", "Neil Armstrong", False),
        ("Buzz Aldrin or Neil Armstrong", "Neil Armstrong", False), ("I don't know!", "Neil Armstrong", False),
        ("", "x", False),
        ("Buzz Aldrin\n\nNeil Armstrong came first.", "Neil Armstrong", False),
        ("name " * 50 + "Neil Armstrong", "Neil Armstrong", False),
        ("Monica Seles", "Seles Monica", True), ("26 May 2017", "May 26, 2017", True),
        ("May 17, 2026", "May 26, 2017", False),
        ("1 to 2", "2 to 1", False), ("1989", "in 1989", True), ("1989", "1990", False), ("19", "1989", False),
        ("4451516", "4,451,516", True),
        ("4", "four", True), ("seventeen", "17", True), ("Howard's End", "howard s end", True),
        ("L'Équipe", "l équipe", True),
        ("Clare", "clare disambiguation", True), ("the Tremeloes", "Tremeloes", True),
        ("Owen", "Owen (Scott McCord)", True),
        ("Montezuma II", "Moctezuma II; Montezuma II", True),
        ("Tours or Poitiers", "battle of tours or poitiers", False),
        ("The battle of Tours or Poitiers", "battle of tours or poitiers", True), ("🐧", "🐧", True),
        ("🐥", "🐧", False),
        ("penguin", "🐧", False),
        ("中華", "中華", True), ("R. Kelly", "r kelly", True), ("October 27, 2017", "October\xa027,\xa02017", True),
    ],
)  # fmt: skip
def test_free_text(text: str, answer: str, right: bool) -> None:
    assert grade(text, fact(answer)) is right


def test_a_question_without_an_answer_cannot_be_graded() -> None:
    with pytest.raises(ValueError, match="'q' has no answer"):
        grade("B", Question("q", "?"))


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=200)
    | st.text("AB#$\\{}boxed-.,/ 0123or\nis not answer:()", max_size=80)
)
def test_no_text_breaks_the_grader(text: str) -> None:
    assert extract(text, SUN) in (None, *"ABCD")
    for question in (number("1"), number(r"\boxed{\frac12}", "math"), fact("x")):
        assert grade(text, question) in (True, False)


@pytest.mark.parametrize("question", [SUN, number("1"), number("1", "math"), fact("x")])
@pytest.mark.parametrize(
    "text",
    ["(" * 9000, "answer " * 3000, "1," * 9000, "\\boxed{" * 3000, "B " * 5000, "I'm sorry " * 2000, "a. " * 5000],
)
def test_hostile_texts_take_no_time(text: str, question: Question) -> None:
    started = time.perf_counter()
    grade(text, question)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "right"), [("95", True), (" 95\n", True), ("9 5", False), ("095", False), ("95.0", False), ("", False)]
)
def test_the_labs_answers_are_compared_as_they_stand(text: str, right: bool) -> None:
    assert grade(text, Question("37+58=", "37+58=", "lab/add", None, "95")) is right
