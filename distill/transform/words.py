"""Words that names may not be, and words that names are made of."""

from __future__ import annotations

import builtins
import keyword
from functools import cache
from importlib import resources

_C = """
alignas alignof auto bool break case char const constexpr continue default do double else enum
extern false float for goto if inline int long nullptr register restrict return short signed sizeof
static static_assert struct switch thread_local true typedef typeof typeof_unqual union unsigned
void volatile while asm main
"""
_CPP = """
and and_eq atomic_cancel atomic_commit atomic_noexcept bitand bitor catch char8_t char16_t char32_t
class co_await co_return co_yield compl concept consteval constinit const_cast decltype delete
dynamic_cast explicit export final friend import module mutable namespace new noexcept not not_eq
operator or or_eq override private protected public reflexpr reinterpret_cast requires static_cast
synchronized template this throw try typeid typename using virtual wchar_t xor xor_eq
"""
_JAVA = """
abstract assert boolean break byte case catch char class const continue default do double else enum
exports extends false final finally float for goto if implements import instanceof int interface
length long main module native new null open opens package permits private protected provides public
record requires return sealed short static strictfp super switch synchronized this throw throws to
transient transitive true try uses var void volatile when while with yield
"""

_NAMES = """
account address amount anchor angle area argument arrow attempt average axis balance band base
batch bias block board border bottom bound box branch bridge bucket budget buffer bundle candidate
capacity cell center chain change channel chapter chunk circle clause client cluster code column
command component config content context control corner cost counter cursor cycle delta density
depth detail device diff digit direction domain edge effect element energy entry event extent
factor failure field figure filter flag flow folder frame gap gate grade graph grid group guess half
handle head height history hour image income input interval item label layer lead leaf level limit
line load local loss lot margin mark match matrix measure member message method metric middle model
month motion multiple node notice number object offset option order origin outcome output owner
packet page panel parent part past path pattern pause peak period person phase piece pivot place
plan point policy pool portion position prefix price prior product profile progress proof quantity
query quota radius range rate reading reason record region report request reserve response rest
retry reward ring role root round route row rule sample scale scene scope score section segment
sequence series session shape share side signal site slice slope slot source space speed spot stage
state step store stride style subject subset suffix sum symbol table target task team temp term
text threshold ticket title token topic total trace track trail trial turn unit usage value version
view volume wave weight width window word worker year zone
"""
NAMES = tuple(_NAMES.split())
"""What programmers call things; some are reserved in one language and then not taken there."""


@cache
def reserved(language: str) -> frozenset[str]:
    """Keywords, types, builtins, and for C and C++ the names of the libraries.

    A function that took a name of libc would replace it for the whole program; one that took a name
    of ``std`` may become ambiguous after ``using namespace std``.
    """
    if language == "python":
        return frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"))
    if language == "java":
        return frozenset(_JAVA.split())
    library = resources.files("distill.transform").joinpath("reserved.txt").read_text("utf-8")
    return frozenset((*_C.split(), *_CPP.split(), *library.split()))
