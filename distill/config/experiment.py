"""One YAML file is one experiment. This module defines every key: its type, default and meaning.

Load with :func:`load`; unknown keys, wrong types and values out of range are refused with the key,
the value and the fix. Nothing here reads a data file or a model, or starts a process: see
driver/checks/check.py. Nor is torch imported: a configuration is refused at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from distill.aggregation import Aggregation, UniformMean
from distill.config.chain import Stop, is_link_name
from distill.config.explain import explain, wrong_word
from distill.config.fits import misfits
from distill.config.labels import configured_label, configured_map
from distill.config.memory import SharedMemory
from distill.config.moe import MoE, OwnRouting
from distill.config.overrides import assign, parse_override
from distill.config.sampling import DatasetSampling, Sampling
from distill.config.search import Search
from distill.config.tasks import TASKS
from distill.config.temperature import ConstantTemperature, TemperatureSchedule
from distill.config.yaml_text import read_yaml, yaml_fault
from distill.errors import ConfigError
from distill.names import checked_name, twins
from distill.objectives import ForwardKL, Objective
from distill.variant import Dtype, ModelPath, Only, Section, Variant
from distill.wires import DenseWire, Wire

Device = Literal["auto", "cpu", "cuda"]
Cut = Literal["head", "tail", "middle"]
Name = Annotated[str, AfterValidator(checked_name)]
"""One line of text: C++, 电影, Home & Kitchen; see names.py."""
CPUs = Annotated[float, Field(ge=0)] | Literal["auto"]
SPLITS = ("train", "transfer", "validation", "test")
RENDERING = frozenset(
    (
        "messages",
        "conversation",
        "tools",
        "documents",
        "chat_template",
        "add_generation_prompt",
        "continue_final_message",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer_kwargs",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
    )
)
"""Arguments of transformers' apply_chat_template that are not variables of a template."""
Label = Annotated[str, BeforeValidator(configured_label, json_schema_input_type=str | int)]
OF_TEXT = Only("language_model", way_out="set task to language_model, or set data.columns.text")


class Columns(Section):
    """Names of the columns. A row is a text, a pair of texts, numbers, a prompt with its
    completion, or a chat."""

    text: str | None = "text"
    """Column with the text or source code. null (the default) if ``features``, ``prompt`` or
    ``messages`` is given."""
    prompt: Annotated[str | None, OF_TEXT] = None
    """Language models: column with the prompt; needs ``completion``. The student is trained only on
    the tokens of the completion."""
    completion: str | None = None
    """Language models: column with the text that follows the prompt."""
    messages: Annotated[str | None, OF_TEXT] = None
    """Language models: column with chats, lists of {role, content}; the student is trained only on
    the assistant's tokens. Needs a chat template: ``data.chat_template``, or that of the student's
    tokenizer. A message of the assistant may have ``tool_calls`` and no content; a message with
    ``weight`` 0 is context only. ShareGPT's {from, value} is accepted too, and so is content as a
    list of text parts."""
    tools: str | None = None
    """Language models: column with the tool schemas of a chat, for the template: lists of objects
    or of JSON strings, or such a list as a string; null or empty: none."""
    text_pair: Annotated[str | None, Only("classification")] = None
    """Column with the second text of a pair task (clone detection, entailment); null for single
    texts. Transformer models read the pair as joined by their tokenizer, objects with
    ``predict_proba`` as one string with a newline between the two."""
    label: str = "label"
    """Column with the label: a string, an integer or a boolean. Language models have none."""
    domain: str | None = None
    """Column with the domain of a row (a product category, a programming language); null: no
    domains. Experts can be trained for each value, and results are reported for each value."""
    split: str | None = None
    """Column with the name of the split that a row belongs to; null: from the names of files and
    folders, else from a hash (``data.holdout``)."""
    features: Annotated[str | tuple[str, ...] | None, Only("classification")] = None
    """Numbers instead of text: one column of lists of equal length, or a list of several columns of
    numbers."""

    @model_validator(mode="before")
    @classmethod
    def _one_content(cls, raw: Any) -> Any:
        """The default text column is dropped where another content is named."""
        if not isinstance(raw, dict):
            return raw
        named = [k for k in ("features", "prompt", "messages") if raw.get(k) is not None]
        if not named:
            return raw
        for key in ("text", "text_pair", *named[1:]):
            if raw.get(key) is not None:
                raise ValueError(
                    f"give data.columns.{key} ({raw[key]!r}) or data.columns.{named[0]} "
                    f"({raw[named[0]]!r}), not both: a row has one content"
                )
        return raw | {"text": None}

    @model_validator(mode="after")
    def _some_input(self) -> Columns:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError(
                "data.columns.prompt and data.columns.completion must be given together"
            )
        if {self.text, self.features, self.prompt, self.messages} == {None}:
            raise ValueError("data.columns.text is null: name a column, or data.columns.features")
        if self.tools is not None:
            self._check_tools(self.tools)
        names = (self.features,) if isinstance(self.features, str) else self.features
        if names is not None and (not names or len(set(names)) < len(names)):
            raise ValueError(f"data.columns.features names no column, or one twice: {names}")
        return self

    def _check_tools(self, tools: str) -> None:
        if self.messages is None:
            raise ValueError(
                f"data.columns.tools ({tools!r}) applies only to chats: give "
                "data.columns.messages, or remove it"
            )
        for key in ("messages", "domain", "split"):
            if getattr(self, key) == tools:
                raise ValueError(
                    f"data.columns.tools and data.columns.{key} both name {tools!r}: name two "
                    "columns"
                )


class SplitNames(Section):
    """Names of the splits in ``data.columns.split``, or in the names of files and folders. In file
    names, these words are searched first, then the keywords of Hugging Face ``datasets``: see
    data/split_names.py."""

    train: str = "train"
    """Name of the split that students and experts are trained on."""
    transfer: str = "transfer"
    """Name of the split on which only the student is trained, from the teachers' outputs; its
    labels are not read."""
    validation: str = "validation"
    """Name of the split that is used to select the exported weights, and by sweeps."""
    test: str = "test"
    """Name of the split for the final comparison; nothing is selected with it."""


class Holdout(Section):
    """Shares of the rows (or of the rows of the train files) for splits that are given neither by a
    column nor by file names. A hash of ``group`` or of the text selects the rows, so that rows that
    are added later do not change the split of the others."""

    transfer: float = Field(default=0.0, ge=0, lt=1)
    """Share of the rows for the transfer split, whose labels are not used: the student is trained
    on them, experts are not. Raise it (0.3) if ``experts`` are trained: on their own training rows
    they are almost certain, so their outputs add little to the labels."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows for the validation split."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows for the test split."""
    group: str | None = None
    """Column that is hashed, so that all rows with the same value are in the same split (a
    document, an author, a template); null: the text is hashed, so that equal texts are in the same
    split."""


class Limit(Section):
    """Maximum rows for each domain and split; a seeded sample is kept."""

    train: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""
    transfer: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""
    validation: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""
    test: int | None = Field(default=None, gt=0)
    """Rows of each domain; null: all."""


class ImageShape(Section):
    """Shape of the image that the numbers of a row are, in the order height, width, channels."""

    height: int = Field(ge=1)
    """Pixels."""
    width: int = Field(ge=1)
    """Pixels."""
    channels: int = Field(default=1, ge=1)
    """Numbers per pixel: 1 for grey, 3 for RGB."""


class Data(Section):
    path: str | tuple[str, ...]
    """Parquet, Arrow, JSONL or CSV: a file, folder, glob or URI (file, s3, gs, any fsspec), a list
    of them, or a folder written by Hugging Face ``datasets``. If the name of any file in a folder,
    glob or list contains the word train, all file names must contain their split (see
    ``splits``)."""
    columns: Columns = Columns()
    """Names of the columns."""
    labels: Annotated[tuple[Label, ...] | None, Only("classification")] = None
    """Label names in class order; null: those of the first teacher, else the sorted values of the
    train split. Integers need no quotes."""
    splits: SplitNames = SplitNames()
    """Names of the splits."""
    holdout: Holdout = Holdout()
    """Shares of the rows for splits that the data does not define."""
    limit: Limit = Limit()
    """Use fewer rows, for a quick first run."""
    max_length: int = Field(default=128, ge=4)
    """Maximum number of tokens of a row, special tokens included; longer rows are truncated (see
    ``cut``), counted and reported. Language models: tokens of a block; a longer ``text`` is split
    into several blocks without loss, a longer prompt with its completion, or chat, is truncated.
    Time and memory grow with it: choose a length that covers most rows."""
    packing: bool = True
    """Language models: true packs sequences of one domain into blocks of ``max_length`` tokens,
    each with its own attention and positions. false: one sequence per block, which generated text
    needs (``sampling.type``)."""
    max_unlearnable: float = Field(default=0.01, ge=0, le=1)
    """Language models: maximum share of rows without target tokens (an empty completion, a chat
    without an answer, a prompt that fills ``max_length``). Such rows are dropped and counted; above
    this share the data is refused."""
    cut: Cut = "head"
    """Which tokens of a text longer than ``max_length`` are kept: ``head`` the first, ``tail`` the
    last, ``middle`` the first and the last, half each (an odd one at the front). Special tokens are
    always kept. In a pair, the longer text is truncated first, down to the length of the shorter
    one, then both equally (an odd token is kept in the longer), each by this rule. Use ``tail`` if
    the end of the text matters most."""
    on_empty_text: Literal["error", "drop"] = "error"
    """What to do with an empty text (0 characters): ``error`` refuses the data, ``drop`` drops and
    counts the row."""
    chat_template: str | None = None
    """Language models: file with the Jinja template that renders ``columns.messages``; it is
    exported with the student's tokenizer. null: the template of the tokenizer."""
    prompt_as_chat: bool = False
    """Language models: render ``columns.prompt`` and ``completion`` with the chat template, as a
    message of the user and one of the assistant, which is trained on. false: plain text, one after
    the other."""
    template_arguments: dict[str, Any] = {}
    """Language models: arguments for the chat template, e.g. {enable_thinking: false}."""
    unlabelled: Annotated[Literal["error", "transfer", "drop"], Only("classification")] = "error"
    """Classifiers: what to do with a row without a label outside the transfer split. ``error``:
    refuse the data. ``transfer``: move it to transfer if it is in train or its split is chosen by a
    hash; it is dropped if its text is also in validation or test, or if ``holdout.group`` puts it
    into one of these. ``drop``: drop it. Both count the rows, and then a validation or test file
    without any labels (or only with -1) counts as missing. Distillation helps most on unlabelled
    text: on rows that the teachers were trained on, their outputs add little to the labels."""
    image: Annotated[ImageShape | None, Only("classification")] = None
    """Shape of ``columns.features`` as an image; needed by ``student.family`` cnn. Pixels are
    standardised with one mean and standard deviation per channel. null: the numbers are not an
    image."""
    cache_dir: str | None = None
    """Folder of the tokenised data, shared by all runs; null: $DISTILL_CACHE or
    ~/.cache/distill."""

    @field_validator("labels")
    @classmethod
    def _two_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(set(labels)) != len(labels) or len(labels) < 2):
            raise ValueError(f"data.labels needs at least two different labels, got {labels}")
        return labels

    @field_validator("template_arguments")
    @classmethod
    def _of_the_template(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(RENDERING & arguments.keys()):
            raise ValueError(
                f"data.template_arguments.{taken[0]} is set by distill itself: remove it"
            )
        try:
            json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"data.template_arguments {arguments} must be JSON values: put other values in "
                "quotes"
            ) from None
        return arguments

    @model_validator(mode="after")
    def _chats_for_the_template(self) -> Data:
        if self.prompt_as_chat and self.columns.prompt is None:
            raise ValueError(
                "data.prompt_as_chat renders prompts and completions as chats: give "
                "data.columns.prompt and completion, or remove it"
            )
        for key in ("chat_template", "template_arguments"):
            if getattr(self, key) and self.columns.messages is None and not self.prompt_as_chat:
                raise ValueError(
                    f"data.{key} applies only to chats: give data.columns.messages, or "
                    "data.prompt_as_chat: true with data.columns.prompt, or remove it"
                )
        return self


class Optimizer(Section):
    """AdamW with linear warm-up."""

    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate. Try 1e-3 for small models with random initial weights, 2e-5 to 1e-4 for
    pretrained weights."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW, decoupled from the gradient."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's running means of the gradient and of its square."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the steps during which the learning rate rises linearly from 0."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up: ``cosine`` or ``linear`` to 0, or
    ``constant``."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Maximum global gradient norm; larger gradients are scaled down to it."""


class Serving(Section):
    """How one teacher is served."""

    replicas: int = Field(default=1, ge=1)
    """Processes that serve this teacher; requests go to the least busy one. Raise it if the student
    waits for this teacher (metric ``teacher.<name>.wait_s``)."""
    num_cpus: CPUs = "auto"
    """CPUs that Ray reserves for each replica, fractions allowed; a replica uses as many threads,
    rounded up. ``auto``: an equal share of the CPUs of this machine that are not reserved by the
    student's ranks or by replicas with a number, between 0.1 and 1 (0 if that does not fit either:
    the replicas then share the CPUs of the ranks); 1 on a cluster (``cluster.address``). Set a
    number for a teacher that should use several threads. A language model with one thread computes
    two requests at a time on this machine, which also uses the CPU of a student that waits for it;
    not on a cluster, and not where text is generated."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs of each replica, fractions allowed; above 0, it runs on the GPU."""
    node_labels: dict[str, str] = {}
    """Ray node labels that a replica requires, e.g. {role: teacher}; {}: any node."""
    dtype: Dtype = "float32"
    """Data type of the teacher: bfloat16 halves its memory."""
    wire: Wire = DenseWire()
    """Wire format: how its outputs are encoded for the student and the cache."""
    moe: MoE = OwnRouting()
    """For mixture-of-experts teachers: which of their experts are active."""
    max_batch_tokens: int = Field(default=16384, gt=0)
    """Maximum number of padded tokens in one forward; a larger request takes several forwards.
    Lower it if the teacher runs out of memory."""
    batch_requests: bool = False
    """Compute requests of several student ranks that wait at a replica in one forward, up to
    ``max_batch_tokens``: faster for many ranks with small batches. The outputs then depend on
    timing in their last bits, so that two runs do not have bit-identical weights. Needs
    ``moe.type`` own and ``stream.transport`` object_store."""
    kv_cache_mb: float = Field(default=4096.0, ge=0)
    """Language models that verify drafts (``sampling.type`` skd): memory in MB (10⁶ bytes) of the
    key-value caches that each replica keeps between the rounds of a text. The least recently used
    are evicted, and computed again from the next request, with the same results: raise it if
    verification gets slower with more student ranks, lower it if the teacher runs out of memory."""
    allow_pickle: bool = False
    """Load weights that exist only as a pickle (``pytorch_model.bin``, .pkl, .joblib). A pickle can
    run code: set it only for files that you trust."""

    offload_idle_s: float | None = Field(default=None, gt=0)
    """Seconds without a request after which a replica on a GPU moves its model to host memory, so
    that a student on the same GPU can use the memory; it moves back before the next request, with
    bit-identical outputs. null: the model stays on the GPU. Needs ``num_gpus`` above 0. Set it if
    all outputs come from the cache after the first epoch. Ray's reservation of the GPU does not
    change."""

    @model_validator(mode="after")
    def _offloads_what_is_on_a_gpu(self) -> Self:
        if self.offload_idle_s is not None and self.num_gpus == 0:
            raise ValueError(
                f"offload_idle_s: {self.offload_idle_s:g} moves a model from a GPU to host memory, "
                "and num_gpus is 0: set num_gpus above 0, or offload_idle_s: null"
            )
        return self

    @model_validator(mode="after")
    def _batches_what_can_be_batched(self) -> Self:
        if self.batch_requests and not isinstance(self.moe, OwnRouting):
            raise ValueError(
                f"batch_requests: true needs moe.type: own, not {self.moe.type}, whose draws and "
                "gates belong to one request: set batch_requests: false, or moe.type: own"
            )
        return self

    @property
    def cpus(self) -> float:
        """``num_cpus``; 1 where ``auto`` was not resolved (see driver/checks/resources.py)."""
        return 1.0 if self.num_cpus == "auto" else self.num_cpus

    @property
    def process(self) -> dict[str, Any]:
        """Settings of a process: teachers of one base that differ in them cannot share one."""
        named = Serving.model_fields.keys() - {"wire", "moe"}
        return {name: getattr(self, name) for name in sorted(named)}


class Teacher(Serving):
    """One existing model that is used as a teacher."""

    name: Name
    """Name in tables, metrics and overrides (``teachers.<name>.path=…``)."""
    tokenizer_sha256: str | None = None
    """Required SHA-256 fingerprint of the tokenizer, as printed by ``distill check``; null: any."""
    path: ModelPath
    """A Hugging Face folder: config, safetensors, tokenizer. Or, with ``allow_pickle``, a pickle
    (.pkl, .joblib) of any object with ``predict_proba`` and ``classes_``, such as scikit-learn's;
    probabilities below 1e-7 are clamped to it and counted."""
    labels: Annotated[dict[str, Label] | None, Only("classification")] = None
    """Classifiers: the data's label for each label of this teacher that has another name, such as
    {LABEL_0: negative, LABEL_1: positive}. null: labels are matched by name, in any order; where
    none matches, LABEL_i (or i) is the integer i, or ``data.labels[i]``."""
    adapter: Annotated[
        ModelPath | None,
        Only(
            "language_model",
            way_out="merge it into a model folder (peft's merge_and_unload), and set path to that "
            "folder",
        ),
    ] = None
    """Language models: folder of a LoRA adapter for the model in ``path``, written by peft's
    save_pretrained; null: the model without an adapter. Adapters with the same ``path`` whose
    serving keys differ only in ``wire`` and ``moe`` are served together, from one copy of the
    model."""

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_as_text(cls, labels: Any) -> Any:
        return None if labels is None else configured_map(labels)


class ByColumn(Variant):
    """One expert for each value of ``data.columns.domain``."""

    type: Literal["column"] = "column"


class KMeans(Variant):
    """One expert for each cluster of the base encoder's mean-pooled embeddings."""

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    type: Literal["kmeans"] = "kmeans"
    num_clusters: int = Field(default=4, ge=2)
    """Number of clusters, each with its own expert."""


Partition = Annotated[ByColumn | KMeans, Field(discriminator="type")]


class Router(Section):
    """A classifier over the partitions, from the same base: softmax(W · enc(x))."""

    targets: Literal["partition", "lowest_loss"] = "partition"
    """Target class of a training row: its partition, or [ours] the expert with the lowest
    cross-entropy on its label (of equal ones, the expert of the partition). An expert is almost
    certain on the rows that it was trained on, so ``lowest_loss`` mostly agrees with the partition;
    it differs if an expert does not fit its rows and another one does."""
    layers: int | None = Field(default=None, ge=1)
    """Number of the base's first layers that are kept; null: all."""
    train_layers: int | None = Field(default=None, ge=0)
    """Number of top layers that are trained (0: only the head); null: all."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the training rows."""
    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimizer step."""
    optimizer: Optimizer = Optimizer(lr=5e-5, decay="linear")
    """AdamW of the router."""
    serving: Serving = Serving()
    """How the router is served while the student is trained."""


class Experts(Section):
    """Experts that are fine-tuned in this run (MoEKD steps 1–3); leave out if ``teachers`` lists
    models."""

    base: ModelPath
    """Hugging Face folder of the encoder, or language model, that is the initial model of every
    expert."""
    lora: Annotated[Lora | None, Only("language_model")] = None
    """Language models: each expert is a LoRA adapter on the base; all are served together, from one
    copy of the base. null: full models."""
    partition: Partition = ByColumn()
    """Which training rows each expert is trained on."""
    train_layers: int | None = Field(default=None, ge=0)
    """Number of top layers that are trained (0: only the head); null: all."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes of each expert over its rows."""
    batch_size: int = Field(default=16, ge=1)
    """Rows of one optimizer step."""
    optimizer: Optimizer = Optimizer(lr=2e-5, decay="linear")
    """AdamW of the experts."""
    dtype: Dtype = "float32"
    """Data type of matrix products while experts and router are trained; with bfloat16, weights and
    accumulation stay float32."""
    router: Router | None = Router()
    """The router, trained where ``aggregation.type`` needs one; null: none."""
    serving: Serving = Serving()
    """How each expert is served while the student is trained."""
    num_cpus: float = Field(default=1.0, gt=0)
    """CPUs of one training task, fractions allowed; as many tasks run in parallel as fit on the
    cluster."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs of one training task, fractions allowed; above 0, it trains on the GPU."""
    node_labels: dict[str, str] = {}
    """Ray node labels that a training task requires, e.g. {role: teacher}; {}: any node."""


class InitFrom(Section):
    """Start from a model's embeddings and some of its layers."""

    path: ModelPath
    """Hugging Face folder of the model."""
    layers: int = Field(ge=1)
    """Number of its layers that are kept."""
    keep: Literal["first", "even"] = "first"
    """Which layers are kept (language models): ``first``, or ``even``: evenly spaced, including the
    first and the last. Encoders always keep the first."""


class Lora(Section):
    """Train only low-rank updates (LoRA, arXiv 2106.09685, with peft); the export merges them."""

    rank: int = Field(default=16, ge=1)
    """Rank of each update; a higher rank has more parameters."""
    alpha: float = Field(default=32.0, gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the inputs of each update."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an update; ``all-linear``: all but the head."""


SCALES: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
}
"""layers and hidden of the BERT miniatures, Turc et al. 2019 (arXiv 1908.08962)."""


class Student(Section):
    """The small model: one of ``path``, ``init_from``, ``scale``, ``size_mb``, or dimensions."""

    family: Literal["transformer", "mlp", "cnn"] | None = None
    """``transformer`` for text, ``mlp`` or ``cnn`` (with ``data.image``) for
    ``data.columns.features``; null: transformer for text, mlp for features."""
    path: ModelPath | None = None
    """Hugging Face folder of a model; training starts from its weights."""
    init_from: InitFrom | None = None
    """Start from some layers of a larger model, such as the teacher."""
    scale: Literal["tiny", "mini", "small", "medium", "base"] | None = None
    """Layers and hidden width by name: tiny 2 and 128, mini 4 and 256, small 4 and 512, medium 8
    and 512, base 12 and 768 (the BERT miniatures). null: set by one of the other keys; without any,
    tiny."""
    size_mb: float | None = Field(default=None, gt=0)
    """Maximum size of the exported safetensors file in MB (10⁶ bytes, float32); the dimensions are
    chosen to fit it."""
    layers: int | None = Field(default=None, ge=1)
    """Number of layers; null: by ``scale`` or ``size_mb``."""
    hidden: int | None = Field(default=None, ge=8)
    """Width of every layer, channels of a cnn; null: by ``scale`` or ``size_mb``."""
    heads: int | None = Field(default=None, ge=1)
    """Attention heads, a divisor of ``hidden``; null: hidden / 32, at least 1."""
    kv_heads: Annotated[int | None, Only("language_model")] = Field(default=None, ge=1)
    """Language models: heads of keys and values, a divisor of ``heads``; null: as many as
    ``heads``."""
    ffn: int | None = Field(default=None, ge=1)
    """Width of the feed-forward layers; null: 4 · hidden, for language models 8/3 · hidden, rounded
    up to a multiple of 8."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of encoders in training. The default for language models is none, or that of the
    initial model folder; a value that is set replaces it."""
    tokenizer: ModelPath | None = None
    """Folder of the student's tokenizer; null: that of the initial model, of the experts' base or
    of the first teacher that is a model folder."""
    vocab_size: Annotated[int | None, Only("classification")] = Field(default=None, ge=64)
    """Retrain the tokenizer to this many tokens on the text of train and transfer, for a smaller
    embedding table; null: keep the tokenizer."""
    lora: Annotated[Lora | None, Only("language_model")] = None
    """Language models with ``path`` or ``init_from``: train only low-rank updates (LoRA). null:
    train all parameters."""

    @model_validator(mode="after")
    def _one_size(self) -> Student:
        sized = {
            "student.path": self.path,
            "student.init_from": self.init_from,
            "student.scale": self.scale,
        }
        given = [key for key, value in sized.items() if value is not None]
        dims = [k for k in ("layers", "hidden", "heads", "ffn") if getattr(self, k) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}, not both")
        if given and (dims or self.size_mb is not None):
            extra = [f"student.{d}" for d in dims] or ["student.size_mb"]
            raise ValueError(f"{given[0]} already fixes the size: remove {', '.join(extra)}")
        if self.size_mb is not None and self.hidden is not None and self.layers is not None:
            raise ValueError("student.size_mb solves for dimensions: remove student.hidden")
        if self.vocab_size is not None and (self.path or self.init_from):
            raise ValueError(
                f"student.vocab_size {self.vocab_size} would discard the embeddings of "
                f"{given[0]}: remove one of the two"
            )
        return self


class KD(Section):
    """L = α · c(T) · D(p_T, p_S) + (1 − α) · CE(y, z_S)."""

    temperature: float = Field(default=2.0, gt=0)
    """T: the logits of teachers and student are divided by it. Above 1, less probable classes have
    more weight."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teachers' outputs; 1 − alpha is the weight of the labels. 0: only labels, 1:
    only teachers."""
    normalise: Annotated[
        Literal["tokens", "sequences"], Only("language_model", way_out="remove kd.normalise")
    ] = "tokens"
    """Language models: the mean that D and CE are. ``tokens``: over all tokens of a batch, so that
    a long text weighs more than a short one. ``sequences``: over the tokens of each text, then over
    texts, as in the code of SKD's authors; needs ``data.packing: false``."""
    schedule: TemperatureSchedule = ConstantTemperature()
    """How T changes while the student is trained: T = low + (high − low) · s, with s from 0 to 1.
    In the formulas, t is the step and N the number of steps."""

    @model_validator(mode="after")
    def _ordered(self) -> KD:
        low, high = self.schedule.range_of(self.temperature)
        if self.schedule.type != "constant" and not low < high:
            raise ValueError(
                f"kd.schedule.low {low:g} must be below kd.schedule.high {high:g} (null: 0.5 and "
                f"1.5 times kd.temperature {self.temperature:g}): change one of them"
            )
        return self


class Trainer(Section):
    """How the student is trained: engine, ranks, batches, intervals."""

    engine: Literal["deepspeed", "torch"] = "deepspeed"
    """``deepspeed``: ZeRO, for large students. ``torch``: plain PyTorch, which starts faster."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What DeepSpeed shards over the ranks: 0 nothing, 1 optimizer state, 2 also gradients, 3 also
    weights."""
    num_workers: int = Field(default=1, ge=1)
    """Data-parallel ranks of the student."""
    num_cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs of one rank, fractions allowed; it uses as many threads, rounded down, at least 1. A
    different number of threads changes the last digits of sums."""
    num_threads_cached: Literal["auto"] | Annotated[int, Field(ge=1)] | None = "auto"
    """Threads of one rank from the second epoch on, where every teacher output is then read from
    the cache: with ``cache.type`` arrow or memory, ``sampling.type`` dataset and no mixture of
    experts with ``moe.type`` ka or sar. ``auto``: the rank's CPUs and an equal share of those of
    the teachers, which are idle then; as in the first epoch for small students (below 5e9
    operations a forward and backward), on GPUs, on a cluster (``cluster.address``) and in sweeps.
    Decided at the first start and kept in the run folder. null: as in the first epoch."""
    num_gpus_per_worker: float = Field(default=0.0, ge=0)
    """GPUs of one rank; above 0, it trains on the GPU."""
    node_labels: dict[str, str] = {}
    """Ray node labels that a rank requires, e.g. {role: student}; {}: any node."""
    device: Device = "auto"
    """auto: the GPU if num_gpus_per_worker is above 0, else the CPU."""
    dtype: Dtype = "float32"
    """Data type of the student's matrix products; bfloat16 is faster on GPUs. The optimizer's
    weights stay float32."""
    gradient_checkpointing: Annotated[bool, Only("language_model")] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    loss_chunk_mb: float = Field(default=340, gt=0)
    """Language models: MB of float32 logits, of student and teachers together, that the loss
    computes at once (a few copies exist for a short time). Lower it if the student runs out of
    memory."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the train and transfer rows; fractions are allowed."""
    batch_size: int = Field(default=32, ge=1)
    """Rows (language models: blocks) of one optimizer step, over all ranks and micro-batches."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward on one rank; gradients are accumulated over several. Lower it if the
    student runs out of memory. null: batch_size / num_workers."""
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the validation split; null: once per epoch."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; one is also written at the end and on Ctrl-C."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Number of newest checkpoints that are kept; older ones are deleted."""
    log_every: int = Field(default=10, ge=1)
    """Steps between records of training metrics. Temperature schedules that follow losses read the
    means of so many steps; with them, a run can be resumed only with the same value."""
    select_by: Annotated[
        Literal["eval.accuracy", "eval.f1", "eval.perplexity"] | None,
        Only(
            "classification",
            ("eval.f1",),
            "use eval.perplexity or eval.accuracy (of the next token)",
        ),
        Only("language_model", ("eval.perplexity",), "use eval.accuracy or eval.f1"),
    ] = None
    """The metric on the validation split that selects the exported weights; null: eval.accuracy,
    for language models eval.perplexity (the lowest)."""
    max_failures: int = Field(default=1, ge=0)
    """How often a failed worker group is restarted from the last checkpoint."""


class Generation(Section):
    """Language models: text is generated greedily and compared with the completions of the test
    split."""

    num_prompts: int = Field(default=50, ge=0)
    """Number of test rows with a prompt (of a chat: all before its last answer); 0: nothing is
    generated."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Maximum number of generated tokens."""


Transport = Literal["object_store", "nixl"]


class Stream(Section):
    """Requests between the teachers and one rank of the student."""

    in_flight: int = Field(default=4, ge=1)
    """Number of steps for which outputs are requested ahead of the student (W)."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds without progress of a replica after which its requests are sent to another one: it
    does not respond to a status request, or finishes no forward while a request waits at it. Time
    in the queue of a replica that makes progress does not count. Must be longer than one forward,
    and than encoding and sending its outputs."""
    retries: int = Field(default=3, ge=0)
    """How often a request is sent again after its replica was lost or made no progress."""
    recovery_s: float = Field(default=1800.0, gt=0)
    """Seconds that a run waits for a teacher of which no replica is up (a lost node, a slow
    restart). The student writes a checkpoint and continues once the teacher responds; after
    ``recovery_s`` the run stops and can be resumed. A teacher that stops responding without a
    report from Ray is noticed after ``deadline_s``: a shorter ``recovery_s`` stops the run then."""
    transport: Transport = "object_store"
    """How outputs are sent. ``object_store``: Ray's shared memory. ``nixl``: Ray Direct Transport,
    from the memory of the teacher (GPU memory if it has a GPU) to the host memory of the rank;
    needs the package nixl."""


class Cache(Section):
    """Where teachers' outputs are cached."""

    type: Literal["arrow", "memory", "none"] = "arrow"
    """``arrow``: on disk, for later epochs, runs and sweeps. ``memory``: until the run ends.
    ``none``: outputs are always computed again. The output layer of a teacher with the wire
    ``hidden`` is kept in a file in every case, which all ranks of a node map into their memory."""
    path: str | None = None
    """Folder of the Arrow cache; null: ``<output>/cache``, or the shared memory if ``memory.path``
    is set. Runs with the same folder share the outputs."""


class LabelsOnly(Variant):
    """A student that is trained only on the labelled rows, with the same loop, for the same number
    of steps."""

    type: Literal["labels_only"] = "labels_only"
    name: Name
    """Name in tables and metrics."""
    student: Student | None = None
    """Its model; null: the same as the distilled student."""
    optimizer: Optimizer | None = None
    """Its AdamW; null: that of the distilled student."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the labelled rows; null: as many steps as the distilled student."""
    batch_size: int | None = Field(default=None, ge=1)
    """Rows of one optimizer step; null: that of the distilled student."""


class TfidfBaseline(Variant):
    """TF-IDF (word 1–2-grams) and logistic regression on the labelled rows."""

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    type: Literal["tfidf"] = "tfidf"
    name: Name = "tf-idf"
    """Name in tables and metrics."""


Baseline = Annotated[LabelsOnly | TfidfBaseline, Field(discriminator="type")]


class Chain(Section):
    """A progressive chain: intermediate students between teachers and student, each distilled from
    the one before (HPM-KD)."""

    links: Literal["auto"] | Annotated[int, Field(ge=1, le=32)] = "auto"
    """L, the number of links; the student is the last one. ``auto``: ceil(log2(parameters of the
    largest teacher / parameters of the student)), or one more than ``students`` if these are
    given. 1: no intermediate link. Link i has |θ_T| · (|θ_S| / |θ_T|)^(i/L) parameters."""
    stop: Stop = "loss"
    """When the chain ends early; the link that ends it is dropped, and the student is distilled
    from the last link that is kept. By the metric that selects weights (``trainer.select_by``), on
    validation. ``loss`` [ours]: a link is worse than the one before (link 1: than the aggregated
    teachers) by more than ``epsilon``. ``gain`` (HPM-KD): a link after the first is not better
    than the one before by at least ``epsilon``; as links become smaller, nearly always link 2."""
    epsilon: float = Field(default=0.01, ge=0, lt=1)
    """Relative change of the metric, for ``stop``."""
    students: tuple[Student, ...] = ()
    """The intermediate links by hand, from large to small; they read with the student's tokenizer.
    (): built by size, or from more layers of ``student.init_from``."""

    @model_validator(mode="after")
    def _one_student_a_link(self) -> Chain:
        if self.students and self.links != "auto" and len(self.students) != self.links - 1:
            raise ValueError(
                f"chain.links {self.links} counts the student, so chain.students must have "
                f"{self.links - 1} sections, one for each intermediate link; it has "
                f"{len(self.students)}"
            )
        for index, student in enumerate(self.students):
            for key in ("tokenizer", "vocab_size"):
                if (value := getattr(student, key)) is not None:
                    raise ValueError(
                        f"chain.students.{index}.{key} {value}: the links of a chain read with the "
                        f"student's tokenizer: set student.{key}, and remove this key"
                    )
        return self


class Tracking(Section):
    """What is logged to MLflow, and where."""

    experiment: str | None = None
    """MLflow experiment; null: the name of the configuration file."""
    run_name: str | None = None
    """Name of the run in MLflow; null: MLflow chooses one."""
    uri: str | None = None
    """MLflow store; null: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working
    folder."""
    system_metrics: bool = True
    """Log use of CPU, memory, disk and network."""
    log_model: bool = True
    """Log the exported student as an MLflow model."""


class Cluster(Section):
    """Where Ray runs."""

    address: str | None = None
    """A running Ray cluster that this machine is part of: ``auto`` or ``host:port``; null starts a
    local one. ``--address`` sets it."""
    num_cpus: float | None = Field(default=None, gt=0)
    """CPUs of a local cluster, rounded down; null: all of the machine."""
    max_tasks: int | None = Field(default=None, ge=1)
    """Experts, router and baselines that are trained at once; 1: one after the other, and none
    while the student is trained; null: as many as there are resources for."""
    start_deadline_s: float = Field(default=900.0, gt=0)
    """Seconds to wait until all teachers have started; a cluster may have to start machines for
    them."""

    @field_validator("address")
    @classmethod
    def _no_url(cls, address: str | None) -> str | None:
        if address is not None and "://" in address:
            raise ValueError(
                f"cluster.address must be auto or host:port, got {address!r}: distill does not "
                "run through Ray Client; from outside a cluster, submit it as a job: ray job "
                "submit --address http://127.0.0.1:8265 -- distill train … --address auto"
            )
        return address


class Experiment(Section):
    """The whole configuration file."""

    task: str = Field(default="classification", json_schema_extra={"enum": [*TASKS]})
    """Type of teachers and student: classifiers (of text or features), or causal language
    models."""
    data: Data
    """The data and how it is read."""
    output: str
    """Folder of the run: checkpoints, metrics, cache, and the exported student in ``student/``.
    Default: ``runs/`` and the name of the configuration file. The same command with the same folder
    resumes."""
    experts: Experts | None = None
    """Experts that are trained first and used as teachers; null: ``teachers`` lists existing
    models."""
    teachers: tuple[Teacher, ...] = ()
    """Existing models that are used as teachers; (): the trained ``experts``, or none."""
    aggregation: Aggregation = UniformMean()
    """How the outputs of several teachers are combined into one target, and which teachers each row
    is sent to."""
    objective: Objective = ForwardKL()
    """The divergence between the target and the student, or a list of several, each with its
    ``weight``: their sum, each with its own c(T)."""
    kd: KD = KD()
    """Temperature and weight of the distillation loss."""
    student: Student = Student()
    """The student: its family, size and initial weights."""
    chain: Chain | None = None
    """Intermediate students between teachers and student; null: none."""
    sampling: Sampling = DatasetSampling()
    """Language models: source of the text that the student is trained on."""
    optimizer: Optimizer = Optimizer()
    """AdamW of the student."""
    trainer: Trainer = Trainer()
    """How the student is trained."""
    generation: Generation = Generation()
    """Language models: generated text in the evaluation."""
    stream: Stream = Stream()
    """Requests between the student and its teachers."""
    cache: Cache = Cache()
    """Where teachers' outputs are cached."""
    memory: SharedMemory = SharedMemory()
    """Shared memory: teachers' outputs and finished fits that later experiments find again."""
    baselines: tuple[Baseline, ...] = ()
    """Models that the distilled student is compared with in the final table."""
    warm_start: Annotated[
        bool,
        Only(
            "classification",
            way_out="remove it, or run distill sweep to search for values",
        ),
    ] = False
    """Classifiers with teachers: start from past runs in MLflow. They propose ``kd.temperature``,
    ``kd.alpha``, ``optimizer.lr``, ``optimizer.weight_decay`` and, with a chain, ``chain.epsilon``;
    brief runs compare the proposal with the values in this file. ``distill sweep`` ignores it: see
    ``search.warm_start``."""
    search: Search | None = None
    """What ``distill sweep`` varies; ``distill train`` ignores it."""
    tracking: Tracking = Tracking()
    """What is logged to MLflow."""
    cluster: Cluster = Cluster()
    """Where Ray runs."""
    seed: int = Field(default=0, ge=0)
    """Seed of weights, batches, splits by hash and samples: the same seed gives the same run."""

    @field_validator("task", mode="before")
    @classmethod
    def _is_a_task(cls, task: object) -> object:
        if task not in [*TASKS]:  # whatever its type
            raise ValueError(wrong_word("task", TASKS, task))
        return task

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        _refuse_twins("teachers", [t.name for t in self.teachers])
        if self.experts and self.teachers:
            raise ValueError("give experts (trained here) or teachers (existing models), not both")
        is_by_column = self.experts and isinstance(self.experts.partition, ByColumn)
        if is_by_column and self.data.columns.domain is None:
            raise ValueError(
                "experts.partition.type 'column' needs data.columns.domain: name the column, "
                "or use partition.type 'kmeans'"
            )
        if self.aggregation.needs_router():
            has_router = self.experts is not None and self.experts.router is not None
            if not has_router and getattr(self.aggregation, "router", None) is None:
                raise ValueError(
                    f"aggregation.type {self.aggregation.type!r} needs a router: give "
                    "aggregation.router (a folder), or experts with experts.router"
                )
        baseline_names = [b.name for b in self.baselines]
        if "student" in baseline_names:
            raise ValueError(
                "baselines: 'student' is the name of the distilled student: use another name"
            )
        _refuse_twins("baselines", baseline_names)
        if self.chain is not None:
            self._check_chain()
        self._check_mean()
        if self.trainer.device == "cuda" and self.trainer.num_gpus_per_worker == 0:
            raise ValueError("trainer.device is cuda: set trainer.num_gpus_per_worker above 0")
        if self.trainer.device == "cpu" and self.trainer.num_gpus_per_worker > 0:
            raise ValueError("trainer.num_gpus_per_worker is above 0 with trainer.device cpu")
        return self

    def _check_mean(self) -> None:
        if self.kd.normalise == "tokens":
            return
        key = f"kd.normalise {self.kd.normalise}"
        for _, message in misfits(self.kd, self.task, "kd"):
            raise ValueError(message)
        if self.data.packing:
            raise ValueError(
                f"{key} averages over the tokens of each text, and data.packing puts several texts "
                "into a row: set data.packing: false, or kd.normalise: tokens"
            )

    def _check_chain(self) -> None:
        if not self.has_teachers:
            raise ValueError(
                "chain needs teachers, from which its first link is distilled: give experts or "
                "teachers, or remove chain"
            )
        named = {"teachers": [t.name for t in self.teachers]}
        named["baselines"] = [b.name for b in self.baselines]
        for key, names in named.items():
            if taken := [name for name in names if is_link_name(name)]:
                raise ValueError(
                    f"{key}: {taken[0]!r} is the name of a link of the chain: use another name"
                )

    @property
    def is_language_model(self) -> bool:
        return self.task == "language_model"

    @property
    def has_teachers(self) -> bool:
        return self.experts is not None or bool(self.teachers)


def _refuse_twins(key: str, names: list[str]) -> None:
    found = twins(names)
    if found is not None:
        one, other = map(repr, found)
        both = (
            f"two {key} are named {one}" if one == other else f"{one} and {other} are too similar"
        )
        raise ValueError(f"{key}: {both}: names must differ in more than case and spaces")


def load(
    path: str | Path, overrides: list[str] | None = None, output_suffix: str = ""
) -> Experiment:
    """The experiment in a YAML file, with ``a.b=c`` overrides (values are YAML) applied in order.

    ``output`` defaults to ``runs/<stem><output_suffix>`` and ``tracking.experiment`` to the stem.
    """
    path = Path(path)
    raw = _read(path)
    for override in overrides or []:
        assign(raw, *parse_override(override))
    raw.setdefault("output", f"runs/{path.stem.removesuffix(output_suffix)}{output_suffix}")
    tracking = raw.setdefault("tracking", {})
    if isinstance(tracking, dict) and tracking.get("experiment") is None:
        tracking["experiment"] = path.stem
    return parse(raw, source=str(path))


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; ConfigError for one that cannot be read or is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}{_files_near(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from None
    try:
        raw = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {yaml_fault(error, text)}") from None
    if raw is None:
        raise ConfigError(f"{path} is empty: it must at least have data.path")
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} must hold a mapping of keys, such as data: and teachers:, got "
            f"{type(raw).__name__}"
        )
    return raw


def _files_near(path: Path) -> str:
    """The YAML files that are in the folder instead."""
    there = sorted(each.name for each in path.parent.glob("*.y*ml"))[:5]
    return f": {path.parent}/ has {', '.join(there)}" if there else ": check the path"


def parse(raw: dict[str, Any], source: str = "configuration") -> Experiment:
    """Validate a mapping; every problem in one ConfigError, a line each."""
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, source, Experiment, raw)) from None
