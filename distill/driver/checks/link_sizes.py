"""The intermediate links of a chain, before anything starts: their sizes, and lines of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distill.config import Chain, Experiment, Serving, Student
from distill.config.chain import is_link_name, link_layers, link_name, link_sizes, num_links
from distill.config.moe import OwnRouting
from distill.errors import ConfigError, ModelError
from distill.models.plain_head import described, has_plain_head
from distill.records import Line
from distill.tasks.checks.loaded import Folder
from distill.tasks.checks.sizes import ModelSize
from distill.tasks.plan import Plan
from distill.wording import count, counted

Measure = Callable[[Student], ModelSize]
BY_HAND = "chain.students (one section for each intermediate link)"
CLOSE = 0.95
"""Share of the parameters that a link should have at which no larger shape is looked for."""
SMALLEST_SHARE = 0.7
"""The share that it must have at least."""
CORRECTIONS = 4


def check_sweep_of_chain(experiment: Experiment) -> None:
    """Raise ConfigError for a chain in a sweep, whose trials learn from the cached outputs of the
    teachers."""
    if experiment.chain is not None:
        raise ConfigError(
            f"chain (links: {experiment.chain.links}) applies only to distill train: the trials of "
            "a sweep are distilled from the outputs of its teachers; remove chain, and train the "
            "best trial's settings with a chain"
        )


def with_chain(
    plan: Plan, teachers: Mapping[str, Folder], updates: Mapping[str, int] | None = None
) -> Plan:
    """The plan with its intermediate links, and their lines; without a chain itself.

    ``teachers``: by name, or the experts' base; ``updates``: parameters of adapters on them. Raises
    ConfigError, with the fix, for links that cannot be built.
    """
    chain = plan.experiment.chain
    if chain is None:
        return plan

    if taken := [name for name in plan.teacher_names if is_link_name(name)]:  # of domains
        raise ConfigError(
            f"the teacher {taken[0]!r} has the name of a link of the chain: give its domain "
            "another name in the data"
        )

    def measure(student: Student) -> ModelSize:
        return plan.task.student_size(plan, student)

    students, ratio = chain.students, None
    for index, student in enumerate(students):
        _check_by_hand(plan, f"chain.students.{index}", student, measure)
    if not students and chain.links != 1:
        teacher, layers = _largest(chain, teachers, updates or {})
        student = measure(plan.experiment.student)
        students = link_students(chain, plan.experiment.student, teacher, layers, measure)
        ratio = f"the largest teacher has {teacher / student.num_params:.1f} times the student's"
    _check_wire(plan, students)
    links = [
        Line(link_name(i), *_described(student, measure(student)))
        for i, student in enumerate(students, 1)
    ]
    what = f"{len(links) + 1} links, stop: {chain.stop}, epsilon {chain.epsilon:g}"
    if not links:
        what = "no intermediate link: the student is distilled from the teachers"
    compared = "" if ratio is None else f"{ratio} parameters"
    *others, output = plan.lines
    lines = (*others, Line("chain", what, compared), *links, output)
    return replace(plan, links=students, lines=lines)


def serving_of_link(experiment: Experiment) -> Serving:
    """How a link is served as a teacher: as the experts, or the first teacher. It is no mixture of
    experts."""
    given = experiment.experts.serving if experiment.experts else experiment.teachers[0]
    own: dict[str, Any] = {name: getattr(given, name) for name in Serving.model_fields}
    return Serving(**own | {"moe": OwnRouting(), "allow_pickle": False})


def link_students(
    chain: Chain, student: Student, teacher: float, teacher_layers: int, measure: Measure
) -> tuple[Student, ...]:
    """The intermediate links by size, from large to small. ``teacher``: parameters."""
    if student.path or student.lora:
        key = "student.path" if student.path else "student.lora"
        raise ConfigError(
            f"chain.links {chain.links}: a student with {key} has no smaller or larger shapes, so "
            f"the links' sizes cannot be computed: give {BY_HAND}"
        )
    own = measure(student)
    links = num_links(teacher, own.num_params) if chain.links == "auto" else chain.links
    if links == 1:
        return ()
    if own.num_params >= teacher:
        raise ConfigError(
            f"chain.links {links}: the student has {own.num_params:,} parameters, the largest "
            f"teacher {teacher:,.0f}, so no size lies between them: use a smaller student, or "
            "remove chain"
        )
    sizes = link_sizes(teacher, own.num_params, links)[:-1]
    if student.init_from is not None:
        students = _of_more_layers(student, sizes, measure)
    else:
        layers = link_layers(teacher_layers, own.layers, links)
        shapes = zip(sizes, layers[:-1], strict=True)
        students = [_of_size(student, *shape, measure) for shape in shapes]
    before = teacher
    for link, (one, size) in enumerate(zip(students, sizes, strict=True), 1):
        num_params = _measured(one, link, size, links, measure)
        if not before > num_params > own.num_params:
            raise ConfigError(
                f"chain.links {links}: {link_name(link)} would have {num_params:,} parameters, "
                f"which is not between those of the one before ({before:,.0f}) and of the student "
                f"({own.num_params:,}): use fewer links, or give {BY_HAND}"
            )
        before = num_params
    return tuple(students)


def _of_size(student: Student, num_params: float, layers: int, measure: Measure) -> Student:
    """The largest student of the same kind, and with these layers, that has at most so many
    parameters, or nearly; its width follows.

    ``size_mb`` counts 4 bytes a parameter and the file's header, which is most of a tiny file."""
    fixed = dict.fromkeys(("scale", "hidden", "heads", "kv_heads", "ffn")) | {"layers": layers}

    def capped(size_mb: float) -> Student:
        return student.model_copy(update=fixed | {"size_mb": size_mb})

    found = capped(4 * num_params / 1e6)
    for _ in range(CORRECTIONS):
        try:
            missing = num_params - measure(found).num_params
        except ConfigError:  # not even the smallest shape fits
            missing = num_params / 2
        if missing <= (1 - CLOSE) * num_params:
            break
        assert found.size_mb is not None
        found = capped(found.size_mb + 4 * missing / 1e6)
    return found


def _of_more_layers(student: Student, sizes: tuple[float, ...], measure: Measure) -> list[Student]:
    """Students that keep more layers of the same folder, whose layers are alike."""
    start = student.init_from
    assert start is not None
    num_layers = measure(Student(path=start.path)).layers
    own = measure(student).num_params

    def of(layers: int) -> Student:
        kept = start.model_copy(update={"layers": layers})
        return student.model_copy(update={"init_from": kept})

    if start.layers >= num_layers:
        return [student for _ in sizes]
    each = measure(of(start.layers + 1)).num_params - own
    return [of(min(num_layers, start.layers + round((size - own) / each))) for size in sizes]


def _measured(student: Student, link: int, size: float, links: int, measure: Measure) -> int:
    fix = f"use other chain.links, or give {BY_HAND}"
    shape = "" if student.layers is None else f" in {student.layers} layers"
    target = f"chain.links {links}: {link_name(link)} should have {size:,.0f} parameters{shape}"
    try:
        num_params = measure(student).num_params
    except ConfigError:
        raise ConfigError(f"{target}, and the smallest shape has more: {fix}") from None
    if student.init_from is None and num_params < SMALLEST_SHARE * size:
        raise ConfigError(
            f"{target}, and the nearest shape below has {num_params:,}: give student.init_from, so "
            f"that links keep layers of a model, or {fix}"
        )
    return num_params


def _largest(
    chain: Chain, teachers: Mapping[str, Folder], updates: Mapping[str, int]
) -> tuple[float, int]:
    """Parameters and layers of the largest teacher as it is served."""
    for name, teacher in teachers.items():
        if not teacher.num_params:
            raise ConfigError(
                f"chain.links {chain.links}: teacher {name!r} has no parameter count (it is an "
                "object with predict_proba), so the links' sizes cannot be computed: set "
                f"chain.links to a number, and give {BY_HAND}"
            )
    sizes = {name: t.num_params + updates.get(name, 0) for name, t in teachers.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    return sizes[largest], teachers[largest].num_layers


def _check_by_hand(plan: Plan, key: str, student: Student, measure: Measure) -> None:
    """Raise for a link that cannot be built for the student's data and tokenizer."""
    experiment = plan.experiment
    start = (student.init_from or student).path
    if start and experiment.student.vocab_size:
        raise ConfigError(
            f"{key} starts from {start}, whose tokens are not those of the tokenizer that "
            f"student.vocab_size {experiment.student.vocab_size} retrains: give its layers and "
            "hidden or size_mb, or remove student.vocab_size"
        )
    try:
        plan.task.check_link(plan, key, student)
        measure(student)
    except (ConfigError, ModelError) as error:
        message = str(error)
        raise type(error)(message if message.startswith(key) else f"{key}: {message}") from None


def _check_wire(plan: Plan, students: Sequence[Student]) -> None:
    """Raise for a link that could not send its outputs to the next one."""
    serving = serving_of_link(plan.experiment)
    if plan.task.wire_of(serving).takes != "hidden":
        return
    for link, student in enumerate(students, 1):
        start = (student.init_from or student).path
        if start is not None and has_plain_head(described(start)) is False:
            raise ConfigError(
                f"chain: {link_name(link)} starts from {start}, a model that caps or scales its "
                "logits after the output layer, so the wire hidden cannot send its outputs: use "
                "the wire dense or topk for the first teacher, or another model"
            )


def _described(student: Student, size: ModelSize) -> tuple[str, str]:
    shape = f"{counted(size.layers, 'layer')}, hidden {size.hidden}"
    start = (student.init_from or student).path
    if start is not None:
        shape = f"from {start}, {counted(size.layers, 'layer')}"
    return shape, f"{count(size.num_params)} parameters, {size.num_params * 4 / 1e6:.3g} MB"
