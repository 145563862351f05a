"""The sections ``teachers`` and ``experts``: existing models, models that are trained first, and
how they are served."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from distill.config.labels import Label, configured_map
from distill.config.moe import MoE, OwnRouting
from distill.config.student import Lora
from distill.config.training import Optimizer
from distill.variant import Dtype, ModelPath, Name, Only, Section, Variant
from distill.wires import DenseWire, Wire

CPUs = Annotated[float, Field(ge=0)] | Literal["auto"]


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
