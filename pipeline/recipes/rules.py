"""llama.cpp's mixtures as a table: which tensors get another type than the recipe's base type.

The rules are those of ``llama_tensor_get_type`` of llama.cpp (``src/llama-quant.cpp``), so that a file made here has the types
that llama-quantize would have chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the rules want to know of a model, from its hyperparameters."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_experts: int = 0


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor stands in its model.

    Attributes:
        facts: of the model.
        role: of the tensor, as ``role_of`` names it; "head" for an embedding that is the head too.
        i: how many tensors of this role came before (in the MLP of a mixture of experts: the number of its block).
        seen: how many tensors of this role came before, in a mixture of experts too.
        n: how many there are (in the MLP: layers of the model).
        whole_rows: whether the base type's blocks divide the tensor's rows.
        has_imatrix: whether an importance matrix is used.
    """

    facts: ModelFacts
    role: str
    i: int
    seen: int
    n: int
    whole_rows: bool
    has_imatrix: bool


def _favoured(p: TensorPlace) -> bool:
    """llama.cpp's ``use_more_bits``: the first and the last eighth, and every third between."""
    return p.i < p.n // 8 or p.i >= 7 * p.n // 8 or (p.i - p.n // 8) % 3 == 2


def _is_70b(p: TensorPlace) -> bool:
    f = p.facts
    return f.n_layers == 80 and (f.architecture == "qwen2" or (f.architecture == "llama" and f.n_heads != f.n_kv_heads))


CONDITIONS: Mapping[str, Callable[[TensorPlace], bool]] = {
    "first 2": lambda p: p.i < 2,
    "first 4": lambda p: p.i < 4,
    "first sixteenth": lambda p: p.i < p.n // 16,
    "first eighth": lambda p: p.i < p.n // 8,
    "first eighth seen": lambda p: p.seen < p.n // 8,
    "middle": lambda p: p.n // 8 <= p.i < 7 * p.n // 8,
    "favoured": _favoured,
    "4 experts": lambda p: p.facts.n_experts >= 4,
    "8 experts": lambda p: p.facts.n_experts == 8,
    "not 8 experts": lambda p: p.facts.n_experts != 8,
    "4 heads share keys": lambda p: p.facts.n_kv_heads > 0 and p.facts.n_heads // p.facts.n_kv_heads >= 4,
    "70B": _is_70b,
    "falcon": lambda p: p.facts.architecture == "falcon",
    "not falcon": lambda p: p.facts.architecture != "falcon",
    "broken rows": lambda p: not p.whole_rows,
    "imatrix": lambda p: p.has_imatrix,
    "no imatrix": lambda p: not p.has_imatrix,
}

# Recipes ("*" for all), role, conditions that must all hold, type. The first line that fits counts; where none does, the tensor
# gets the recipe's base type.
RULES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("*",                                           "head",        ("falcon",),                         "Q8_0"),
    ("*",                                           "head",        ("broken rows",),                    "Q8_0"),
    ("IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS",          "head",        (),                                  "Q5_K"),
    ("Q8_0",                                        "head",        (),                                  "Q8_0"),
    ("*",                                           "head",        (),                                  "Q6_K"),

    ("IQ2_XXS IQ2_XS",                              "embedding",   (),                                  "Q2_K"),
    ("IQ2_S IQ2_M IQ3_XXS",                         "embedding",   (),                                  "IQ3_S"),

    ("IQ2_XXS IQ2_XS IQ2_S IQ2_M",                  "attn_v",      ("4 heads share keys",),             "Q4_K"),
    ("IQ2_XXS IQ2_XS IQ2_S IQ2_M",                  "attn_v",      ("4 experts",),                      "Q4_K"),
    ("IQ2_XXS IQ2_XS",                              "attn_v",      (),                                  "Q2_K"),
    ("IQ2_S IQ2_M",                                 "attn_v",      (),                                  "IQ3_S"),
    ("*",                                           "attn_v",      ("8 experts",),                      "Q8_0"),
    ("Q5_K_M Q4_K_M",                               "attn_v",      ("favoured",),                       "Q6_K"),
    ("Q4_K_S",                                      "attn_v",      ("first 4",),                        "Q5_K"),
    ("IQ4_NL IQ4_XS",                               "attn_v",      ("4 heads share keys",),             "Q5_K"),
    ("Q3_K_L",                                      "attn_v",      (),                                  "Q5_K"),
    ("Q3_K_M",                                      "attn_v",      ("first 2",),                        "Q5_K"),
    ("Q4_K_M Q4_K_S Q3_K_M Q3_K_S IQ3_M Q2_K",      "attn_v",      ("70B",),                            "Q5_K"),
    ("IQ3_S IQ3_XS IQ3_XXS Q2_K_S",                 "attn_v",      ("70B", "4 heads share keys"),       "Q5_K"),
    ("Q3_K_M IQ3_M",                                "attn_v",      (),                                  "Q4_K"),
    ("IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_S",            "attn_v",      ("4 heads share keys",),             "Q4_K"),
    ("Q2_K",                                        "attn_v",      (),                                  "Q3_K"),
    ("IQ3_XXS",                                     "attn_v",      ("no imatrix",),                     "IQ3_S"),

    ("IQ2_XXS IQ2_XS IQ2_S IQ2_M",                  "attn_k",      ("8 experts",),                      "Q4_K"),
    ("*",                                           "attn_k",      ("8 experts",),                      "Q8_0"),
    ("IQ3_XS",                                      "attn_k",      (),                                  "IQ3_XXS"),
    ("IQ3_XXS",                                     "attn_k",      (),                                  "IQ2_S"),

    ("IQ3_XS",                                      "attn_q",      (),                                  "IQ3_XXS"),
    ("IQ3_XXS",                                     "attn_q",      (),                                  "IQ2_S"),

    ("IQ2_XXS IQ2_XS IQ2_S IQ2_M",                  "attn_output", ("8 experts",),                      "Q5_K"),
    ("IQ2_S IQ2_M",                                 "attn_output", (),                                  "IQ3_S"),
    ("Q3_K_L",                                      "attn_output", ("falcon",),                         "Q4_K"),
    ("Q4_K_M Q4_K_S IQ4_NL IQ4_XS Q3_K_M Q3_K_S",   "attn_output", ("not falcon", "8 experts"),         "Q5_K"),
    ("IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K",             "attn_output", ("not falcon", "8 experts"),         "Q5_K"),
    ("Q3_K_L",                                      "attn_output", ("not falcon", "not 8 experts"),     "Q5_K"),
    ("Q3_K_M IQ3_M",                                "attn_output", ("not falcon", "not 8 experts"),     "Q4_K"),
    ("IQ3_XXS",                                     "attn_output", ("not falcon", "not 8 experts"),     "IQ3_S"),
    ("Q2_K",                                        "attn_output", ("not falcon", "not 8 experts"),     "Q3_K"),

    ("IQ3_XS",                                      "ffn_gate",    ("middle",),                         "IQ3_XXS"),
    ("IQ3_XS",                                      "ffn_up",      ("middle",),                         "IQ3_XXS"),

    ("IQ2_XXS IQ2_XS",                              "ffn_down",    ("first eighth seen",),              "Q2_K"),
    ("IQ2_S IQ2_M",                                 "ffn_down",    ("first eighth seen",),              "IQ3_S"),
    ("Q5_K_M",                                      "ffn_down",    ("favoured",),                       "Q6_K"),
    ("Q4_K_M",                                      "ffn_down",    ("falcon", "first sixteenth"),       "Q6_K"),
    ("Q4_K_M",                                      "ffn_down",    ("falcon", "favoured"),              "Q5_K"),
    ("Q4_K_M",                                      "ffn_down",    ("not falcon", "favoured"),          "Q6_K"),
    ("Q4_K_S",                                      "ffn_down",    ("not falcon", "first eighth"),      "Q5_K"),
    ("Q5_0",                                        "ffn_down",    ("imatrix", "first eighth"),         "Q5_1"),
    ("Q4_0",                                        "ffn_down",    ("imatrix", "first eighth"),         "Q4_1"),
    ("IQ4_NL IQ4_XS",                               "ffn_down",    ("no imatrix", "first eighth"),      "Q5_K"),
    ("Q3_K_L",                                      "ffn_down",    ("falcon",),                         "Q4_K"),
    ("Q3_K_L",                                      "ffn_down",    (),                                  "Q5_K"),
    ("Q3_K_M",                                      "ffn_down",    ("first sixteenth",),                "Q5_K"),
    ("Q3_K_M",                                      "ffn_down",    ("not falcon",),                     "Q4_K"),
    ("Q3_K_M",                                      "ffn_down",    ("favoured",),                       "Q4_K"),
    ("IQ3_M",                                       "ffn_down",    ("first eighth",),                   "Q4_K"),
    ("IQ3_M",                                       "ffn_down",    ("8 experts", "favoured"),           "Q4_K"),
    ("IQ3_XXS",                                     "ffn_down",    ("no imatrix", "first eighth"),      "Q4_K"),
    ("IQ3_XXS",                                     "ffn_down",    ("no imatrix",),                     "Q3_K"),
    ("Q2_K",                                        "ffn_down",    (),                                  "Q3_K"),
    ("Q2_K_S",                                      "ffn_down",    ("first eighth",),                   "Q4_K"),
)  # fmt: skip


def rule_type(recipe: str, place: TensorPlace) -> str | None:
    """The name of the type that the table gives a tensor; None where that is the recipe's base type."""
    for recipes, role, conditions, kind in RULES:
        meant = role == place.role and (recipes == "*" or recipe in recipes.split())
        if meant and all(CONDITIONS[condition](place) for condition in conditions):
            return kind
    return None


ROLES = (
    ("attn_qkv.weight", "attn_v"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"), ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"), ("ffn_down", "ffn_down"),
)  # fmt: skip


def role_of(name: str) -> str:
    """What a tensor does in its model, as far as the rules tell tensors apart."""
    if name == "output.weight":
        return "head"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "embedding"
    return next((role for part, role in ROLES if part in name), "other")
