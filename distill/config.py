"""One YAML file is one experiment. Every key, its type, default and meaning stands here.

Load with :func:`load`; unknown keys, wrong types and values out of range are refused with the key,
the value and the way out. Nothing here touches a data file, a model or a process: see check.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

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
from distill.config_errors import explain
from distill.errors import ConfigError
from distill.models.labels import configured_label, configured_map
from distill.moe.settings import MoE, OwnRouting
from distill.names import checked_name, twins
from distill.objectives import ForwardKL, Objective
from distill.overrides import assign, parse_override
from distill.sampling.settings import DatasetSampling, Sampling
from distill.search.settings import Search
from distill.teachers.wires import DenseWire, Wire
from distill.variant import Dtype, Section, Variant
from distill.yaml_text import read_yaml, yaml_fault

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
"""Arguments of transformers' apply_chat_template that are no template's own."""
Label = Annotated[str, BeforeValidator(configured_label, json_schema_input_type=str | int)]


class Columns(Section):
    text: str | None = "text"
    """Column with the text or source code; null where ``features``, ``prompt`` or ``messages`` is
    given."""
    prompt: str | None = None
    """Language models: column with what is given; only ``completion`` is learnt."""
    completion: str | None = None
    """Language models: column with what follows the prompt."""
    messages: str | None = None
    """Language models: column with chats, lists of {role, content}; only the assistant's tokens are
    learnt. Needs a chat template: ``data.chat_template``, or that of the student's tokenizer. An
    assistant's message may have ``tool_calls`` and then no content; a message with ``weight`` 0 is
    context. ShareGPT's {from, value} is read, and content as a list of parts of text."""
    tools: str | None = None
    """Language models: column with the tool schemas that the template shows with a chat: lists of
    objects or of strings of JSON, or such a list as a string; null or empty: none."""
    text_pair: str | None = None
    """Second text of a pair task (clone detection); null for single texts. Encoders read both as
    their tokenizer joins pairs, objects with ``predict_proba`` as one string, a newline between."""
    label: str = "label"
    """Column with the label: a string, an integer or a boolean."""
    domain: str | None = None
    """Column with the domain of a row; experts can be partitioned by it."""
    split: str | None = None
    """Column that says which split a row is in; null: split by ``data.holdout``."""
    features: str | tuple[str, ...] | None = None
    """Numbers instead of text: one column of lists of equal length, or several of numbers."""

    @model_validator(mode="before")
    @classmethod
    def _one_content(cls, raw: Any) -> Any:
        """The default text column gives way to other contents; one that is named does not."""
        if not isinstance(raw, dict):
            return raw
        named = [k for k in ("features", "prompt", "messages") if raw.get(k) is not None]
        if not named:
            return raw
        for key in ("text", "text_pair", *named[1:]):
            if raw.get(key) is not None:
                raise ValueError(
                    f"give data.columns.{key} ({raw[key]!r}) or data.columns.{named[0]} "
                    f"({raw[named[0]]!r}), not both: a row is shown in one way"
                )
        return raw | {"text": None}

    @model_validator(mode="after")
    def _some_input(self) -> Columns:
        if (self.prompt is None) != (self.completion is None):
            raise ValueError("data.columns.prompt and data.columns.completion go together")
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
                f"data.columns.tools ({tools!r}) is shown with chats: give data.columns.messages, "
                "or remove it"
            )
        for key in ("messages", "domain", "split"):
            if getattr(self, key) == tools:
                raise ValueError(
                    f"data.columns.tools and data.columns.{key} both name {tools!r}: a column is "
                    "one of them"
                )


class SplitNames(Section):
    """What the splits are called in ``data.columns.split``, or in the names of files and folders.

    Of names these words are looked for first, then the keywords of Hugging Face ``datasets``: see
    data/split_names.py.
    """

    train: str = "train"
    transfer: str = "transfer"
    validation: str = "validation"
    test: str = "test"


class Holdout(Section):
    """Fractions of the rows, or of the train files' rows, that are cut off by a hash of ``group``
    or of the text, for splits that neither a column nor a file gives."""

    transfer: float = Field(default=0.0, ge=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.1, gt=0, lt=1)
    group: str | None = None
    """Column whose values never cross splits (a document, a template); null: the text itself."""


class Limit(Section):
    """Rows kept per domain and split, a seeded sample; null keeps all."""

    train: int | None = Field(default=None, gt=0)
    transfer: int | None = Field(default=None, gt=0)
    validation: int | None = Field(default=None, gt=0)
    test: int | None = Field(default=None, gt=0)


class ImageShape(Section):
    """How the numbers of a row make an image: row by row, the channels of a pixel together."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int = Field(default=1, ge=1)


class Data(Section):
    path: str | tuple[str, ...]
    """Parquet, Arrow, JSONL or CSV: a file, folder, glob or URI (file, s3, gs, any fsspec), a list
    of them, or a folder written by Hugging Face ``datasets``. Where the name of some file in a
    folder, glob or list says train, all must say their split (see ``splits``)."""
    columns: Columns = Columns()
    labels: tuple[Label, ...] | None = None
    """Label names in class order; null: those of the first teacher, else the sorted values of the
    train split. Integers may stand without quotes."""
    splits: SplitNames = SplitNames()
    holdout: Holdout = Holdout()
    limit: Limit = Limit()
    max_length: int = Field(default=128, ge=4)
    """Tokens a row is cut to, special ones included; rows cut are counted and reported. Of language
    models: tokens of a block. A longer ``text`` is split, nothing of it is lost; a longer prompt
    with its completion, or chat, is cut."""
    packing: bool = True
    """Language models: pack sequences of one domain into blocks of ``max_length`` tokens, each with
    its own attention and positions. false: one sequence a block."""
    max_unlearnable: float = Field(default=0.01, ge=0, le=1)
    """Language models: largest share of rows without a token to learn (an empty completion, a chat
    without an answer, a prompt that fills ``max_length``); they are dropped and counted, and above
    this share the data is refused."""
    cut: Cut = "head"
    """Which tokens of a longer text stay: ``head`` its first ones, ``tail`` its last ones;
    ``middle`` its first and last ones, half of those that fit each (an odd one at the front), so
    that its middle goes. Special tokens stay. Of a pair the longer text is cut first, down to the
    shorter one's length, then both alike (an odd token stays with the longer); each by the rule."""
    on_empty_text: Literal["error", "drop"] = "error"
    """A text of 0 characters: refuse the data, or drop and count the row."""
    chat_template: str | None = None
    """Language models: file with the Jinja template that renders ``columns.messages``; it is
    exported with the student's tokenizer. null: the tokenizer's own."""
    template_arguments: dict[str, Any] = {}
    """Language models: what else the chat template is given, e.g. {enable_thinking: false}."""
    unlabelled: Literal["error", "transfer", "drop"] = "error"
    """Classifiers: a row without a label that is not in the transfer split. ``error``: refuse the
    data. ``transfer``: move it there if it is in train or its split is cut by a hash; where
    validation or test also has its text, or ``holdout.group`` holds it out, it is dropped.
    ``drop``: drop it. Both count the rows; and a validation or test file without any label (or
    with -1 alone) then counts as missing. Unlabelled text is where distillation pays: on the rows
    that they were trained on, experts know little more than the labels."""
    image: ImageShape | None = None
    """Shape of ``columns.features``: for ``student.family`` cnn. Scaled as a whole, per channel."""
    cache_dir: str | None = None
    """Where tokenised data is kept; null: $DISTILL_CACHE or ~/.cache/distill."""

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
                f"data.template_arguments {arguments} must be values of JSON: put others in quotes"
            ) from None
        return arguments

    @model_validator(mode="after")
    def _chats_for_the_template(self) -> Data:
        for key in ("chat_template", "template_arguments"):
            if getattr(self, key) and self.columns.messages is None:
                raise ValueError(
                    f"data.{key} is for chats: give data.columns.messages, or remove it"
                )
        return self


class Optimizer(Section):
    """AdamW with linear warm-up."""

    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the steps over which the rate rises linearly from 0."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest global gradient norm."""


class Serving(Section):
    """How one teacher is served."""

    replicas: int = Field(default=1, ge=1)
    num_cpus: CPUs = "auto"
    """CPUs that Ray reserves for each replica, fractions allowed; it computes with as many threads,
    rounded up. ``auto``: an equal share of what the student's ranks and the replicas with a number
    leave of this machine's CPUs, between 0.1 and 1 (0 where that does not fit either: the replicas
    then use the ranks' CPUs); 1 on a cluster (``cluster.address``). Give a number for a teacher
    that should compute with several threads."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs of a replica; above 0 it computes on the GPU."""
    node_labels: dict[str, str] = {}
    """Ray node labels that a replica needs, e.g. {role: teacher}."""
    dtype: Dtype = "float32"
    """The teacher's own arithmetic."""
    wire: Wire = DenseWire()
    """How its answers travel and are cached."""
    moe: MoE = OwnRouting()
    """Mixtures of experts: which experts are asked."""
    max_batch_tokens: int = Field(default=16384, gt=0)
    """Padded tokens in one forward; a larger request is answered in several."""
    allow_pickle: bool = False
    """Load weights that exist only as a pickle (``pytorch_model.bin``). Pickles run code."""

    @property
    def cpus(self) -> float:
        """``num_cpus``; 1 where ``auto`` was not resolved (see check_resources.py)."""
        return 1.0 if self.num_cpus == "auto" else self.num_cpus

    @property
    def process(self) -> dict[str, Any]:
        """What shapes a process: teachers of one base that differ in it cannot share one."""
        named = Serving.model_fields.keys() - {"wire", "moe"}
        return {name: getattr(self, name) for name in sorted(named)}


class Teacher(Serving):
    name: Name
    tokenizer_sha256: str | None = None
    """Fingerprint that the folder's tokenizer must have, as ``distill check`` prints it."""
    path: str
    """A Hugging Face folder: config, safetensors, tokenizer. Or, with ``allow_pickle``, a pickle
    (.pkl, .joblib) of any object with ``predict_proba`` and ``classes_``, such as scikit-learn's;
    probabilities below 1e-7 are raised to it and counted."""
    labels: dict[str, Label] | None = None
    """Classifiers: the data's label for each label of this teacher that is called otherwise, such
    as {LABEL_0: negative, LABEL_1: positive}. Without it labels are matched by name, in any order;
    where none matches, LABEL_i (or i) is the integer i, or ``data.labels[i]``."""
    adapter: str | None = None
    """Language models: the teacher is ``path`` with the LoRA adapter in this folder, as peft's
    save_pretrained writes it. Adapters on one ``path`` whose serving differs in no more than
    ``wire`` and ``moe`` are served together, from one copy of it."""

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_as_text(cls, labels: Any) -> Any:
        return None if labels is None else configured_map(labels)


class ByColumn(Variant):
    """One expert for each value of ``data.columns.domain``."""

    type: Literal["column"] = "column"


class KMeans(Variant):
    """One expert for each cluster of the base encoder's mean-pooled embeddings."""

    type: Literal["kmeans"] = "kmeans"
    num_clusters: int = Field(default=4, ge=2)


Partition = Annotated[ByColumn | KMeans, Field(discriminator="type")]


class Router(Section):
    """A classifier over the partitions, from the same base: softmax(W · enc(x))."""

    targets: Literal["partition", "lowest_loss"] = "partition"
    """What it learns of a training row: its partition, or [ours] the expert with the lowest
    cross-entropy on its label, of equal ones the partition's. On the rows that it was trained on an
    expert is near one-hot, so ``lowest_loss`` leans towards the partition; it departs from it where
    an expert has not fitted its rows and another has."""
    layers: int | None = Field(default=None, ge=1)
    """Keep only the base's first layers; null keeps all."""
    train_layers: int | None = Field(default=None, ge=0)
    """Train the top layers only (0: the head alone); null trains all."""
    epochs: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    optimizer: Optimizer = Optimizer(lr=5e-5, decay="linear")
    serving: Serving = Serving()


class Experts(Section):
    """Experts fine-tuned here (MoEKD steps 1–3); leave out when ``teachers`` names folders."""

    base: str
    """Hugging Face folder of the encoder, or language model, that every expert starts from."""
    lora: Lora | None = None
    """Language models: each expert is an adapter, low-rank updates trained on the base; all are
    served together, from one copy of it."""
    partition: Partition = ByColumn()
    train_layers: int | None = Field(default=None, ge=0)
    """Train the top layers only (0: the head alone); null trains all."""
    epochs: float = Field(default=3.0, gt=0)
    batch_size: int = Field(default=16, ge=1)
    optimizer: Optimizer = Optimizer(lr=2e-5, decay="linear")
    dtype: Dtype = "float32"
    """Of products while experts and router are trained; bfloat16: weights and sums stay float32."""
    router: Router | None = Router()
    serving: Serving = Serving()
    num_cpus: float = Field(default=1.0, gt=0)
    """CPUs of one training task; as many run at once as the cluster has room for."""
    num_gpus: float = Field(default=0.0, ge=0)
    node_labels: dict[str, str] = {}
    """Ray node labels that a training task needs, e.g. {role: teacher}."""


class InitFrom(Section):
    """Start from a model's embeddings and some of its layers."""

    path: str
    layers: int = Field(ge=1)
    keep: Literal["first", "even"] = "first"
    """Which layers of a language model stay: the first ones, or some at even distances with the
    first and the last among them. Of an encoder always the first."""


class Lora(Section):
    """Low-rank updates alone are trained (arXiv 2106.09685, by peft); export merges them."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an update; all-linear: all but the head."""


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
    """null: transformer for text, mlp for ``data.columns.features``. cnn needs ``data.image``."""
    path: str | None = None
    """Continue from this Hugging Face folder."""
    init_from: InitFrom | None = None
    scale: Literal["tiny", "mini", "small", "medium", "base"] | None = None
    size_mb: float | None = Field(default=None, gt=0)
    """Largest exported safetensors in MB (10⁶ bytes, float32); solves for dimensions."""
    layers: int | None = Field(default=None, ge=1)
    hidden: int | None = Field(default=None, ge=8)
    """Width of every layer; channels of a cnn."""
    heads: int | None = Field(default=None, ge=1)
    """null: hidden / 32, at least 1."""
    kv_heads: int | None = Field(default=None, ge=1)
    """Language models: heads of keys and values; null: as many as ``heads``."""
    ffn: int | None = Field(default=None, ge=1)
    """null: 4 · hidden; of language models 8/3 · hidden, up to a multiple of 8."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Language models have none by default, or that of the folder they start from; where it is
    given it replaces whatever dropout their family has."""
    tokenizer: str | None = None
    """Folder of the student's tokenizer; null: that of the experts' base or the first teacher."""
    vocab_size: int | None = Field(default=None, ge=64)
    """Retrain the tokenizer to this many tokens on the train and transfer text; null keeps it."""
    lora: Lora | None = None
    """Language models that start from ``path`` or ``init_from``."""

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
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teachers' soft target."""


class Trainer(Section):
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = 1
    num_workers: int = Field(default=1, ge=1)
    """Data-parallel ranks of the student."""
    num_cpus_per_worker: float = Field(default=1.0, gt=0)
    num_gpus_per_worker: float = Field(default=0.0, ge=0)
    node_labels: dict[str, str] = {}
    """Ray node labels that a rank needs, e.g. {role: student}."""
    device: Device = "auto"
    """auto: the GPU where num_gpus_per_worker is above 0, else the CPU."""
    dtype: Dtype = "float32"
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    loss_chunk_mb: float = Field(default=340, gt=0)
    """Language models: MB of float32 logits, the student's and the teachers' together, that the
    loss holds at once (a few copies of it are alive for a moment)."""
    epochs: float = Field(default=3.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    """Rows of one optimizer step, over all ranks and micro-batches; of language models, blocks."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows of one forward on one rank; null: batch_size / num_workers. Sets the accumulation."""
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations on the validation split; null: once an epoch."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; one is also written at the end and on Ctrl-C."""
    keep_checkpoints: int = Field(default=2, ge=1)
    log_every: int = Field(default=10, ge=1)
    select_by: Literal["eval.accuracy", "eval.f1", "eval.perplexity"] | None = None
    """The metric (on validation) that picks the exported weights; null: eval.accuracy, of language
    models eval.perplexity (the lowest)."""
    max_failures: int = Field(default=1, ge=0)
    """Times a lost worker group is restarted from the last checkpoint."""


class Generation(Section):
    """Language models: what is written, greedily, and compared with the test completions."""

    num_prompts: int = Field(default=50, ge=0)
    """Test rows that have a prompt, or a chat before its last answer; 0 leaves it out."""
    max_new_tokens: int = Field(default=64, ge=1)


Transport = Literal["object_store", "nixl"]


class Stream(Section):
    """Between the teachers and one student rank."""

    in_flight: int = Field(default=4, ge=1)
    """Steps asked ahead of the student (W)."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Longest wait for one answer before another replica is asked."""
    retries: int = Field(default=3, ge=0)
    """Times a request is sent again after a lost replica or a missed deadline."""
    transport: Transport = "object_store"
    """How answers travel. nixl: Ray Direct Transport, from the teacher's memory (of its GPU, where
    it has one) into the rank's host's, without the object store; wants the package nixl."""


class Cache(Section):
    type: Literal["arrow", "memory", "none"] = "arrow"
    """arrow: on disk, kept between runs. memory: gone when the run ends. none: always ask."""
    path: str | None = None
    """Folder of the Arrow cache; null: ``<output>/cache``. Share one folder to share answers."""


class LabelsOnly(Variant):
    """A student trained by the same loop on the labelled rows alone, for as many steps."""

    type: Literal["labels_only"] = "labels_only"
    name: Name
    student: Student | None = None
    """null: the same student as the distilled one."""
    optimizer: Optimizer | None = None
    """null: the distilled student's."""
    epochs: float | None = Field(default=None, gt=0)
    """Epochs over the labelled rows; null: as many steps as the distilled student takes."""
    batch_size: int | None = Field(default=None, ge=1)
    """null: the distilled student's."""


class TfidfBaseline(Variant):
    """TF-IDF (word 1–2-grams) and logistic regression on the labelled rows."""

    type: Literal["tfidf"] = "tfidf"
    name: Name = "tf-idf"


Baseline = Annotated[LabelsOnly | TfidfBaseline, Field(discriminator="type")]


class Tracking(Section):
    experiment: str | None = None
    """MLflow experiment; null: the name of the configuration file."""
    run_name: str | None = None
    uri: str | None = None
    """null: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder."""
    system_metrics: bool = True
    log_model: bool = True
    """Log the exported student as an MLflow model."""


class Cluster(Section):
    address: str | None = None
    """A running Ray cluster that this machine is part of: ``auto`` or ``host:port``; null starts a
    local one."""
    num_cpus: float | None = Field(default=None, gt=0)
    """CPUs of a local cluster; null: all."""
    start_deadline_s: float = Field(default=900.0, gt=0)
    """Longest wait for all teachers to be up; a cluster may have to start machines for them."""

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

    task: Literal["classification", "language_model"] = "classification"
    """What teachers and student are: classifiers, or causal language models."""
    data: Data
    output: str
    """Folder of the run: checkpoints, metrics, cache, and the exported student in ``student/``."""
    experts: Experts | None = None
    teachers: tuple[Teacher, ...] = ()
    """Ready experts; empty: those that ``experts`` trains."""
    aggregation: Aggregation = UniformMean()
    objective: Objective = ForwardKL()
    kd: KD = KD()
    student: Student = Student()
    sampling: Sampling = DatasetSampling()
    """Language models: where the text comes from that the student learns on."""
    optimizer: Optimizer = Optimizer()
    trainer: Trainer = Trainer()
    generation: Generation = Generation()
    stream: Stream = Stream()
    cache: Cache = Cache()
    baselines: tuple[Baseline, ...] = ()
    """What the distilled student is compared with in the final table."""
    search: Search | None = None
    """What ``distill sweep`` varies; ``distill train`` passes it over."""
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        _refuse_twins("teachers", [t.name for t in self.teachers])
        if self.experts and self.teachers:
            raise ValueError("give experts (trained here) or teachers (ready folders), not both")
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
            raise ValueError("baselines: 'student' names the distilled student: take another name")
        _refuse_twins("baselines", baseline_names)
        if self.trainer.device == "cuda" and self.trainer.num_gpus_per_worker == 0:
            raise ValueError("trainer.device is cuda: set trainer.num_gpus_per_worker above 0")
        if self.trainer.device == "cpu" and self.trainer.num_gpus_per_worker > 0:
            raise ValueError("trainer.num_gpus_per_worker is above 0 with trainer.device cpu")
        return self

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
        both = f"two {key} are named {one}" if one == other else f"{one} and {other} read alike"
        raise ValueError(
            f"{key}: {both}: names must differ in more than upper and lower case and blanks"
        )


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
