"""The sections ``optimizer``, ``kd``, ``trainer`` and ``generation``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.config.temperature import ConstantTemperature, TemperatureSchedule
from distill.variant import Dtype, Only, Section

Device = Literal["auto", "cpu", "cuda"]


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
