"""Lines of the plan about the rows and the teachers of language models."""

from __future__ import annotations

from distill.config import Experiment
from distill.data.blocks import Blocks
from distill.data.corpus import Corpus
from distill.records import Line
from distill.tasks.checks.data import counts_of, source_lines
from distill.tasks.language_model.folders import Languages, served_models
from distill.tasks.language_model.moe import gate_line


def tokenizer_lines(languages: Languages) -> list[Line]:
    """Values for ``teachers.<name>.tokenizer_sha256``, each once."""
    names: dict[str, list[str]] = {}
    for name, info in languages.teachers.items():
        names.setdefault(info.tokenizer_sha256, []).append(name)
    return [Line("tokenizer", sha256, f"sha256; {', '.join(of)}") for sha256, of in names.items()]


def gate_lines(experiment: Experiment, languages: Languages) -> list[Line]:
    """Which experts run, of each teacher that is a mixture of experts."""
    served = served_models(experiment, languages)
    return [
        gate_line(key.removeprefix("teachers."), serving.moe, info.gates)
        for key, (_, info, serving) in served.items()
        if info.gates is not None
    ]


def template_lines(experiment: Experiment, languages: Languages) -> list[Line]:
    """Warns where teachers with a chat template are shown prompts and completions without it."""
    data = experiment.data
    infos = dict(languages.teachers)
    if languages.base is not None:
        infos["experts.base"] = languages.base
    names = [name for name, info in infos.items() if info.has_chat_template]
    if data.columns.prompt is None or data.prompt_as_chat or not names:
        return []
    text = (
        f"the chat template of {', '.join(names)} is not used: prompts and completions are plain "
        "text; data.prompt_as_chat=true renders them as user and assistant messages"
    )
    return [Line("chat template", text, "unused")]


def block_lines(corpus: Corpus, blocks: Blocks) -> list[Line]:
    size = f"blocks of {blocks.max_length:,} tokens, {blocks.fill:.0%} full"
    lines = [Line("data", counts_of(blocks), size), *source_lines(corpus)]
    if corpus.domain_names:
        lines.append(Line("domains", ", ".join(corpus.domain_names)))
    for what, count in {
        "truncated to data.max_length": blocks.num_truncated,
        "dropped: no target tokens": blocks.num_unlearnable,
        "dropped: empty": corpus.num_dropped,
    }.items():
        if count:
            lines.append(Line("rows", what, f"{count:,}"))
    return lines
