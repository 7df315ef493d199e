"""The ways in which llama.cpp's byte-level BPE cuts a text: a candidate for each that known tokenizers use.

Facts: the expressions in the tokenizer.json files of the families, and ``llm_tokenizer_bpe`` in src/llama-vocab.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

Steps = tuple[str, ...]  # regular expressions, one after the other; the last may be one of the words below

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS, GPT2 = "<digits>", "<gpt2>"  # each digit alone; GPT-2's own expression, which ends a byte-level pre-tokenizer
FALCON = "<falcon>"

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN35 = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASHED = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _cased(upper: str, lower: str, tail: str, digits: str) -> str:
    """Words that end where a lower-case letter is followed by an upper-case one."""
    head = r"[^\r\n\p{L}\p{N}]?"
    return rf"{head}{upper}*{lower}+{tail}|{head}{upper}+{lower}*{tail}|{digits}|{_SLASHED}"


# In llama.cpp only ASCII letters have a case; every other letter counts as both.
_NOT_LOWER, _NOT_UPPER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"
_MARK_NOT_LOWER, _MARK_NOT_UPPER = r"(?:(?=[\p{L}\p{M}])[^a-z])", r"(?:(?=[\p{L}\p{M}])[^A-Z])"
_OPTIONAL = f"{_CONTRACTION}?"
_GPT4O = _cased(_UPPER, _LOWER, _OPTIONAL, r"\p{N}{1,3}")
_TEKKEN = _cased(_UPPER, _LOWER, "", r"\p{N}")
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK3 = (
    rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SEED_CODER = QWEN2.replace(_REST, r" ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+")

_WIDE = "[一-龥ࠀ-一가-퟿]"  # DeepSeek Coder's, for Chinese and what lies near; U+2028 and U+3000 are in it


# DeepSeek LLM's: letters with a case, as of an old Unicode; and punctuation, whose second range has the letters of ASCII in it.
_CASED = (
    "[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ"
    "ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]"
)
_MARKS = "[!-/:-~！-／：-～‘-‟　-。]"
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
_ALL_LETTERS = r"[\p{L}\p{M}]"  # in llama.cpp's reading of Tiny Aya's expression, no letter has a case


def _deepseek_llm(marks: str, wide: str) -> Steps:
    return (r"[\r\n]", rf"\s?{_CASED}+", rf"\s?{marks}+", r"\s+$", f"{wide}+", DIGITS)


def _deepseek_coder(wide: str) -> Steps:
    return (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", f"{wide}+", DIGITS)


def _spaceless(letters: str) -> str:
    return rf"(?:(?!\s){letters})"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One value of ``tokenizer.ggml.pre``.

    Attributes:
        pre: the value.
        steps: the splitter as original tokenizers have it.
        ignore_merges: a piece that is a token is taken whole, in llama.cpp.
        clean_up: llama.cpp removes the space before punctuation when it turns ids into text.
        really: what llama.cpp does, when it only approximates ``steps``.
        differs: what that does, where it is not about upper and lower case.
        fragile: llama.cpp matches with std::regex, whose recursion overflows the stack on long runs.
    """

    pre: str
    steps: Steps
    ignore_merges: bool = False
    clean_up: bool = False
    really: Steps | None = None
    differs: str = ""
    fragile: bool = False


CANDIDATES: tuple[Candidate, ...] = (
    Candidate("llama-bpe", (_LLAMA3,), ignore_merges=True, clean_up=True),
    Candidate("smaug-bpe", (_LLAMA3,), clean_up=True),
    Candidate("qwen2", (QWEN2,)),
    Candidate("stablelm2", (QWEN2,), clean_up=True),
    Candidate("qwen35", (_QWEN35,)),
    Candidate("smollm", (DIGITS, GPT2)),
    Candidate("refact", (DIGITS, GPT2), clean_up=True),
    Candidate("trillion", (GPT2,)),
    Candidate("gpt-2", (GPT2,), clean_up=True),
    Candidate(
        "granite-embed-multi-97m", (_GPT4O,), ignore_merges=True, fragile=True,
        really=(_cased(_MARK_NOT_LOWER, _MARK_NOT_UPPER, _OPTIONAL, r"\p{N}{1,3}"),),
    ),
    Candidate("gpt-4o", (_GPT4O,), fragile=True, really=(_cased(_NOT_LOWER, _NOT_UPPER, _OPTIONAL, r"\p{N}{1,3}"),)),
    Candidate("tekken", (_TEKKEN,), ignore_merges=True, fragile=True, really=(_cased(_NOT_LOWER, _NOT_UPPER, "", r"\p{N}"),)),
    Candidate("minicpm5", (r"\p{N}{1,3}", _LLAMA3.replace("{1,3}", "+")), ignore_merges=True, clean_up=True, fragile=True),
    Candidate("deepseek-v3", (r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK3), fragile=True),
    Candidate(
        "deepseek-coder", _deepseek_coder(_WIDE), fragile=True, really=_deepseek_coder(_spaceless(_WIDE)),
        differs="leaves rare spaces (U+2028, U+3000) at the word behind them",
    ),
    Candidate(
        "deepseek-llm", _deepseek_llm(_MARKS, _WIDE), fragile=True, really=_deepseek_llm(_spaceless(_MARKS), _spaceless(_WIDE)),
        differs="leaves rare spaces (U+2028, U+3000) at the word behind them",
    ),
    Candidate("poro-chat", (_BLOOM,), fragile=True),
    Candidate("bloom", (_BLOOM,), clean_up=True, fragile=True),
    Candidate("viking", (_BLOOM, DIGITS), fragile=True),
    Candidate(
        "tiny_aya", (r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O), fragile=True,
        really=(r"\P{N}*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _cased(_ALL_LETTERS, _ALL_LETTERS, _OPTIONAL, r"\p{N}{1,3}")),
        differs="does not cut words at upper case, and cuts numbers otherwise when letters touch them",
    ),
    Candidate("falcon", (FALCON,), clean_up=True, fragile=True),
    Candidate("ufakzeka", (QWEN2.removeprefix(f"{_CONTRACTION}|"),), fragile=True),
    Candidate("seed-coder", (_SEED_CODER,), fragile=True),
)  # fmt: skip

KNOWN_EXPRESSIONS = tuple(dict.fromkeys(step for c in CANDIDATES for step in c.steps if not step.startswith("<")))
