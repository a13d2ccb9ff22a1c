"""Parts of speech of captions: a small tagger without dependencies, and NLTK's.

Tags are those of the Penn Treebank (Marcus et al. 1993): ``NN``, ``NNS`` nouns; ``JJ`` adjectives;
``IN`` prepositions; ``VB...`` verbs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vpd.data.word_kinds import compounds, kind_of

__all__ = ["NltkTagger", "Tagger", "tag_words"]

Tagger = Callable[[str], list[tuple[str, str]]]
"""From a text to its words, each with its tag."""

_WORD = re.compile(r"\w+(?=n't\b)|n't\b|'s\b|\w+(?:[-'&](?!s\b)\w+)*|[^\w\s]")
# Ways to move, which nouns rarely follow: "a man skis down".
_MOVE = "ski surf skate skateboard snowboard bike cycle paddle row parachute slide sled"
_AHEAD = "down up through across along over around past into onto toward towards"
_OBJECT = ("DT", "PRP$", "PRP")
_OPENERS = ("DT", "PRP$", "POS", "CD", "JJ", "JJR", "JJS")


def tag_words(text: str) -> list[tuple[str, str]]:
    """Tags a caption in plain English by word lists, endings and neighbours.

    Meant for finding nouns in short descriptions of pictures; verbs are tagged just well enough not
    to be taken for nouns. Words of no list are nouns unless their ending or place says otherwise.
    Words that only say where something is ("left" in "on the left", "front" in "in front of") are
    tagged as adverbs.

    Args:
        text: A caption. Words come out in lower case, punctuation as words of its own.

    Example:
        >>> tag_words("A man rides a wave")
        [('a', 'DT'), ('man', 'NN'), ('rides', 'VBZ'), ('a', 'DT'), ('wave', 'NN')]
    """
    words = _WORD.findall(text.lower().replace("\u2019", "'"))
    sentence = _Sentence(words, [kind_of(word) for word in words])
    for at in range(len(words)):
        sentence.tags.append(sentence.resolve(at))
    return list(zip(words, sentence.tags, strict=True))


class NltkTagger:
    """NLTK's tokeniser and tagger (the perceptron), as ODISE used them.

    Raises:
        ImportError: NLTK is not installed.
    """

    def __init__(self) -> None:
        try:
            import nltk
        except ImportError as error:
            raise ImportError(
                "NltkTagger: expected nltk, which is not installed: pip install 'vpd[nltk]'"
            ) from error
        self._nltk = nltk

    def __call__(self, text: str) -> list[tuple[str, str]]:
        """Words of ``text`` as they are written, with their tags.

        Raises:
            OSError: NLTK's own data are not there.
        """
        try:
            return list(self._nltk.pos_tag(self._nltk.word_tokenize(text)))
        except LookupError as error:
            raise OSError(
                "NltkTagger: NLTK's data are missing: python -m nltk.downloader punkt_tab "
                "averaged_perceptron_tagger_eng"
            ) from error


class _Sentence:
    """A sentence whose words get their tags one after the other.

    Kinds are those of :func:`vpd.data.word_kinds.kind_of`.
    """

    def __init__(self, words: list[str], kinds: list[str]) -> None:
        self.words = words
        self.kinds = kinds
        self.tags: list[str] = []

    def resolve(self, at: int) -> str:
        """The tag of a word, those before it being known."""
        kind = self.kinds[at]
        if kind == "PLACE":
            return self._place(at)
        if kind == "JN":
            return self._adjective_or_noun(at)
        if self._compound(at):
            return "NN"
        if kind[1:2] == ":":
            return self._verb_or_noun(at, kind[2:], always=kind[0] == "V")
        if kind in ("VBG", "VBN") and self._modifies(at):
            return "JJ"
        if kind == "RB" and self.words[at] in ("next", "close") and self._before_noun(at):
            return "JJ"
        if kind in ("NN", "NNS"):
            return self._noun(at, kind)
        return kind

    def _tag(self, at: int) -> str:
        return self.tags[at] if 0 <= at < len(self.tags) else ""

    def _next(self, at: int) -> str:
        return self.kinds[at + 1] if at + 1 < len(self.kinds) else ""

    def _before_noun(self, at: int) -> bool:
        """Whether what follows can be the rest of a noun phrase."""
        following = self._next(at)
        return following in ("NN", "NNS", "JJ", "JN", "PLACE") or following.startswith("N:")

    def _opened(self, at: int) -> bool:
        """Whether a noun has to come: behind an article, a number or an adjective before a noun."""
        before = self._tag(at - 1)
        return before in _OPENERS and not (
            before.startswith("JJ") and self._tag(at - 2).startswith("VB")
        )

    def _begins(self, at: int) -> bool:
        """Whether a noun phrase without an article may begin here."""
        return at == 0 or self._tag(at - 1) in ("IN", "CC", ",", ".")

    def _subject(self, at: int) -> str:
        """NN or NNS, if there is a noun right before; NNS too for "a cat and a dog"."""
        before = self._tag(at - 1)
        if before not in ("NN", "NNS"):
            return ""
        start = self._start(at - 1)
        while start > 0 and self._tag(start - 1) in _OPENERS:
            start -= 1
        joined = start > 1 and self.words[start - 1] == "and" and self._tag(start - 2) == "NN"
        return "NNS" if joined else before

    def _start(self, at: int) -> int:
        while at > 0 and self._tag(at - 1) in ("NN", "NNS", "JJ"):
            at -= 1
        return at

    def _place(self, at: int) -> str:
        following = self._next(at)
        if self.words[at] in ("inside", "outside"):
            return "RB" if following in ("", "IN", "CC", ".", ",") else "IN"
        if following in ("NN", "NNS", "JJ", "JN") and (self._opened(at) or self._begins(at)):
            return "JJ"
        if self._tag(at - 1) == "NN" and following not in ("IN", "") and self.words[at] == "top":
            return "NN"  # tank top
        return "RB"

    def _adjective_or_noun(self, at: int) -> str:
        if self._before_noun(at):
            return "JJ"
        if self.kinds[at + 1 : at + 3] in (["CC", "JJ"], ["CC", "JN"]):
            return "JJ"  # an orange and white cat
        return "NN" if self._opened(at) or self._begins(at) or self._tag(at - 1) == "NN" else "JJ"

    def _compound(self, at: int) -> bool:
        """Whether this is the first word of "dining table" or the like."""
        heads = compounds().get(self.words[at], frozenset())
        return at + 1 < len(self.words) and self.words[at + 1].rstrip("s") in heads

    def _modifies(self, at: int) -> bool:
        """Whether a participle is an adjective: "a parked car", "with sliced fruit"."""
        participle = self.kinds[at] == "VBN" and self._begins(at)
        return (self._opened(at) or participle) and self._before_noun(at)

    def _verb_or_noun(self, at: int, form: str, *, always: bool) -> str:
        before, noun = self._tag(at - 1), "NNS" if form == "VBZ" else "NN"
        if self._opened(at) or (form == "VBZ" and before.startswith("VB")):
            return noun  # a walk; eats leaves
        if before in ("MD", "TO", "PRP", "WDT", "RB") or (always and before != "IN"):
            return form
        subject = self._subject(at)
        if form == "VBZ":
            return form if subject else noun
        return form if subject == "NNS" else noun

    def _noun(self, at: int, kind: str) -> str:
        """A noun of no list may be a verb between its subject and its object."""
        word, following = self.words[at], self._next(at)
        subject, object_ = self._subject(at), following in _OBJECT
        if word.endswith("ing"):
            return "VBG" if subject and object_ else kind
        base = word.removesuffix("s")
        if base in _MOVE.split():
            ahead = at + 1 < len(self.words) and self.words[at + 1] in _AHEAD.split()
            object_ = object_ or ahead or self._tag(at - 1) == "TO"
        if self._tag(at - 1) in ("TO", "MD") and object_:
            return "VB"
        if self._tag(self._start(at - 1) - 1) in ("IN", "TO") and base not in _MOVE.split():
            return kind  # not the subject: "on the tennis courts a man"
        if object_:
            if kind == "NNS" and subject == "NN" and word.endswith("s"):
                return "VBZ"
            if kind == "NN" and subject == "NNS":
                return "VBP"
        if self._tag(at - 1) in ("VBZ", "RB") and self._predicative(at):
            return "JJ"
        return kind

    def _predicative(self, at: int) -> bool:
        """Whether a word of no list ends what is said of something: "the cat is ginger"."""
        is_ = self.words[at - 1] in ("is", "are", "was", "were", "very", "too", "quite", "really")
        return is_ and self.kinds[at] == "NN" and not self._before_noun(at)
