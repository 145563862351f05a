"""Documents, messages, docstrings and tables use the field's terms: one word per concept.

``TERMS`` lists words that a reader of PyTorch, Ray and transformers documentation would not
expect, and what to write instead. Searched: every Markdown document, the example configurations,
and every string literal of the package and its benchmarks (docstrings among them). Identifiers are
not searched.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODELS = r"(?:teachers?|experts?|replicas?|models?|actors?|routers?|hub|ensemble|mixtures?)"
TERMS = {
    r"told": "logged, reported, returned",
    r"whom": "which teachers, routed to",
    rf"ask(?:s|ed|ing)? (?:(?:the|an?|its|every|all|each|one|no|several|of) )*{MODELS}": "query",
    rf"{MODELS}(?: \w+){{0,2}} (?:is|are|was|were|be|been) asked": "queried",
    rf"{MODELS}(?:'s?)? answers?": "output, response, payload",
    r"asked (?:about|anew|again|ahead)": "queried, requested",
    r"speak(?:s|er|ers|ing)?|spoken?": "language model; uses",
    r"stands? (?:in|on|at|below|above|beside|here|there|alone|under|between)": "is in",
    r"abroad": "out-of-domain",
    r"at home|is home|home domain": "in-domain",
    r"has nothing of": "shows no gain",
    r"by heart": "memorised",
    r"learnt": "trained on",
    r"judg(?:e|es|ed|ing|ement)": "verify, verification",
    r"verdicts?": "verification, decision",
    r"(?:mix|mixture|mixes) of (?:the |its |all )?teachers": "ensemble",
    r"teachers' mix(?:ture)?|(?:routed|uniform) mix(?:ture)?": "ensemble",
    r"lessons?": "training run",
    r"foretold": "next-token accuracy",
    r"knobs?": "schedule values, settings",
    r"pace": "intervals",
    r"beside(?!-)": "compared with, next to, and",
    r"to the bit|bit for bit|changes no bit|to the last bit": "bit-identical",
    r"(?:what|which) (?:it|they|that|each) costs?": "latency, memory, FLOPs",
    r"lets? (?:\w+ ){0,3}pass": "accepts",
    r"wants?|wanted": "needs, requires, requested",
    r"says|said": "reads, states, contains, reported",
    r"in vain|for good|gone for ever": "without effect, permanently",
    r"anew": "again",
    r"begun": "started",
    r"way out": "fix",
    r"likelier|likeliest": "more probable, most probable",
    r"sees? each other": "attend to each other",
    r"read alike|otherwise than": "are too similar, differently from",
    r"is none of the (?:teachers|splits)": "is not a teacher, is not a split",
    rf"ready {MODELS}": "existing teacher, trained model",
    r"(?:take|takes) (?:forward_kl|object_store|the wire|sampling\.type|mean, weights)": "use",
    r"(?:a|the) folder with room": "writable folder with enough space",
    r"cut short": "truncated",
    r"blanks": "spaces",
    r"surest": "most certain",
}
CODE = re.compile(r"``[^`]*``|`[^`]*`|[\w/]+\.py|<!--.*?-->")
"""Names in code spans, and file names, are identifiers."""
COMPILED = {re.compile(rf"\b(?:{term})\b", re.IGNORECASE): way for term, way in TERMS.items()}


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", "configs/*.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [ROOT / name for name in listed if (ROOT / name).exists()]


def sources() -> list[Path]:
    return [
        path
        for folder in ("distill", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def literals(path: Path) -> list[tuple[int, str]]:
    """Line and text of every string literal; of an f-string its constant parts."""
    tree = ast.parse(path.read_text("utf-8"))
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if not node.value.isidentifier()
    ]


def found_in(path: Path) -> list[str]:
    if path.suffix == ".py":
        pieces = literals(path)
    else:
        pieces = list(enumerate(path.read_text("utf-8").splitlines(), 1))
    return [
        f"{path.relative_to(ROOT)}:{line}: {match.group()!r}: write {way}"
        for line, text in pieces
        for term, way in COMPILED.items()
        if (match := term.search(CODE.sub(" ", " ".join(text.split()))))
    ]


@pytest.mark.parametrize("path", [*documents(), *sources()], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_term_of_our_own(path):
    assert found_in(path) == []


def test_the_search_finds_what_it_must(tmp_path):
    line = "whom to ask, and what they told; the experts are asked; stands in MLflow; by heart"
    hits = {term.pattern for term in COMPILED if term.search(line)}
    assert len(hits) == 5
