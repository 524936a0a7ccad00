"""Light edits of text: other words for common ones, neighbours swapped."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

_SWAPPED: Final = 0.3
"""Share of the edits that move words rather than replace them."""

_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?")
_CLAUSE_END = re.compile(r"([,;:.!?]+\s+|\n\s*|[\u3001\u3002\uff01\uff0c\uff1b\uff1f]\s*)")
_SPACE = re.compile(r"(\s+)")

# Each line holds words that can stand for each other in most sentences.
_SETS: Final = """
    so, thus, hence, therefore
    but, yet, though, however
    because, since
    also, too, additionally, besides
    maybe, perhaps, possibly
    wait, hold on, hmm
    okay, alright, right, fine
    now, next, then
    first, firstly, to begin
    second, secondly
    finally, lastly, at last
    again, once more
    just, simply, merely, only
    actually, really, in fact
    still, even so
    might, may
    could, can
    should, ought to
    must, have to
    let's, let us
    let me, i will
    i'm, i am
    i'll, i will
    it's, it is
    that's, that is
    there's, there is
    don't, do not
    doesn't, does not
    isn't, is not
    can't, cannot
    won't, will not
    think, believe, suppose, guess
    know, see, notice, note
    consider, examine, look at
    check, verify, confirm, test
    find, determine, work out
    compute, calculate, evaluate
    use, apply, take
    try, attempt
    get, obtain
    give, yield, provide
    gives, yields, provides
    make, form, build
    makes, forms, builds
    means, implies, says
    mean, imply, say
    show, prove, demonstrate
    shows, proves, demonstrates
    start, begin
    starts, begins
    end, finish, stop
    want, wish, would like
    ask, request
    asks, requests
    asked, requested
    go, move
    write, put down
    remember, recall
    assume, suppose, presume
    become, turn into
    becomes, turns into
    seems, appears, looks
    seem, appear, look
    same, identical, equal
    different, distinct, other
    correct, right, accurate
    wrong, incorrect, mistaken
    possible, feasible, conceivable
    important, crucial, key
    large, big
    larger, bigger, greater
    small, little
    smaller, lesser
    easy, simple, straightforward
    hard, difficult, tricky
    many, several, numerous
    all, every one of
    each, every
    total, overall
    whole, entire
    given, provided, stated
    another, one more, a further
    like, such as
    way, method, approach
    answer, result, solution
    problem, question, task
    case, situation, scenario
    step, stage
    steps, stages
    part, portion, piece
    number, count, figure
    value, amount, quantity
    values, amounts, quantities
    thing, item, matter
    things, items, matters
    reason, cause
    example, instance
    idea, thought, notion
    point, spot, place
    rule, law, principle
    list, sequence, series
    sentence, phrase, statement
    person, individual, human
    people, persons, humans
    patient, subject
    time, moment
    if, when, in case
    while, whereas
    between, among
    about, regarding, concerning
    over, above
    under, below
    before, prior to
    after, following
    without, lacking
    within, inside
    using, by means of
    where, in which
    this, that
    these, those
    some, a few
    more, further, extra
    less, fewer
    very, quite, rather
    always, at all times
    never, at no time
    often, frequently
    usually, normally, typically
    exactly, precisely
    only, solely
    already, by now
    here, at this point
    specifically, in particular
    basically, essentially
    clearly, obviously, evidently
    likely, probably
    indeed, truly
    instead, rather
    otherwise, or else
"""


def _others() -> dict[str, list[str]]:
    """Return what can stand for each word."""
    found: dict[str, list[str]] = {}
    for line in _SETS.strip().splitlines():
        alike = [part.strip() for part in line.split(",")]
        for word in alike:
            if " " not in word:
                found.setdefault(word, []).extend(other for other in alike if other != word)
    return found


_OTHERS: Final = _others()


def edited(text: str, share: float, rng: np.random.Generator) -> str:
    """Return a text with about a share of its words changed.

    Clauses that stand side by side change places, common words become others like them; what
    is then left to change, as in code and in other languages, is done by swapping words.
    """
    wanted = max(1, round(share * len(text.split())))
    moves = round(wanted * _SWAPPED)
    text, moved = _swap(text, _CLAUSE_END, moves, rng)
    text, replaced = _replace(text, wanted - moved, rng)
    text, _ = _swap(text, _SPACE, wanted - moved - replaced, rng)
    return text


def _replace(text: str, most: int, rng: np.random.Generator) -> tuple[str, int]:
    """Replace words by others like them; also return how many."""
    found = [match for match in _WORD.finditer(text) if match[0].lower() in _OTHERS]
    count = min(most, len(found))
    parts, end = [], 0
    for at in np.sort(rng.permutation(len(found))[:count]).tolist():
        match = found[at]
        others = _OTHERS[match[0].lower()]
        other = others[int(rng.integers(len(others)))]
        if match[0][0].isupper():
            other = other[0].upper() + other[1:]
        parts += [text[end : match.start()], other]
        end = match.end()
    return "".join([*parts, text[end:]]), count


def _swap(
    text: str, between: re.Pattern[str], most: int, rng: np.random.Generator
) -> tuple[str, int]:
    """Swap neighbours, separators staying in place; also return how many words moved.

    Of two neighbours that change places, the shorter one counts as moved. None moves twice.
    """
    parts = between.split(text)
    moved = 0
    if most <= 0 or len(parts) < 3:
        return text, moved
    settled: set[int] = set()
    for pair in (2 * rng.permutation(len(parts) // 2)).tolist():
        first, second = parts[pair], parts[pair + 2]
        words = min(len(first.split()), len(second.split()))
        if not words or words > most - moved or {pair, pair + 2} & settled:
            continue
        parts[pair], parts[pair + 2] = second, first
        settled |= {pair, pair + 2}
        moved += words
        if moved == most:
            break
    return "".join(parts), moved
