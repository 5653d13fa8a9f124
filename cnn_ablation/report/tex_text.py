"""Any text as pdflatex takes it: special characters, accents, Greek letters, and a word for what has no sign. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_ESCAPES = {
    **{character: rf"\{character}" for character in "%_&#${}"},
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\texttt{\char34}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$", "×": r"$\times$", "÷": r"$\div$", "−": "$-$", "≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$",
    "≈": r"$\approx$", "∞": r"$\infty$", "→": r"$\rightarrow$", "←": r"$\leftarrow$", "·": r"$\cdot$", "√": r"$\surd$",
    "µ": r"$\mu$", "°": r"$^\circ$", "…": r"\ldots{}", "–": r"\textendash{}", "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}", "’": r"\textquoteright{}", "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}",
    "§": r"\S{}", "©": r"\copyright{}", "¡": r"\textexclamdown{}", "¿": r"\textquestiondown{}",
    "ß": r"\ss{}", "ø": r"\o{}", "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_LIGATURES = re.compile(r"([-,'])(?=\1)")
"""What TeX would draw as one sign: two hyphens as a dash."""
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
            "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"}  # fmt: skip
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+(?: SIGMA)?)")
_LETTERS = {
    "alpha": "A", "beta": "B", "gamma": "", "delta": "", "epsilon": "E", "zeta": "Z", "eta": "H", "theta": "",
    "iota": "I", "kappa": "K", "lambda": "", "mu": "M", "nu": "N", "xi": "", "omicron": "O", "pi": "", "rho": "P",
    "sigma": "", "tau": "T", "upsilon": "", "phi": "", "chi": "X", "psi": "", "omega": "",
}  # fmt: skip
"""Greek letters by the names of their commands, with the capital that TeX takes from the Latin alphabet."""


def escaped(text: str) -> str:
    """A text as pdflatex shows it, whatever is in it; what it has no sign for is named by its number: `U+4E2D`."""
    return _LIGATURES.sub(r"\1{}", "".join(map(_character, text)))


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isascii():
        return character if character.isprintable() else " "
    if greek := _greek(unicodedata.name(character, "")):
        return greek
    base, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii():
        dotless = {"i": r"\i{}", "j": r"\j{}"}.get(base, base)
        return f"\\{_ACCENTS[marks[0]]}{{{dotless}}}"
    plain = unicodedata.normalize("NFKD", character)
    return escaped(plain) if plain.isascii() else f"\\texttt{{U+{ord(character):04X}}}"


def _greek(name: str) -> str:
    """A letter by its name in Unicode; empty for all that is none of the 24."""
    found = _GREEK.fullmatch(name)
    letter = found[2].lower().replace("lamda", "lambda") if found else ""
    if letter == "final sigma":
        return r"$\varsigma$"
    if not found or letter not in _LETTERS:
        return ""
    if found[1] == "CAPITAL":
        return _LETTERS[letter] or f"$\\{letter.title()}$"
    return "o" if letter == "omicron" else f"$\\{letter}$"


def breakable(pieces: Iterable[str]) -> str:
    """Pieces of a name as `escaped`, between which it may go on in the next line."""
    return r"\allowbreak{}".join(map(escaped, pieces))


def sentence(text: str) -> str:
    """Prose as `escaped`, with real minus signs, and percent signs that stay with their number."""
    parts = re.split(r"((?<![\w.])-(?=\d)|(?<=\d) %)", text)
    return "".join({"-": "$-$", " %": r"~\%"}.get(part) or escaped(part) for part in parts)
