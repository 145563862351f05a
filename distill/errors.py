"""The exception classes. Every error can be pickled (it crosses processes) and has one message.

The message names the key or file, the value, and the fix:
``kd.temperature must be greater than 0, got 0: use 1 for unsoftened targets``.
"""


class DistillError(Exception):
    """Anything that distill itself reports. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class InputError(DistillError, ValueError):
    """The user's configuration, data or files cannot be used; refused before anything starts."""

    exit_code = 2


class ConfigError(InputError):
    """A key of the configuration is unknown, of the wrong type, or out of range."""


class DataError(InputError):
    """A data file, column, label or text cannot be used."""


class UnknownLabelError(DataError):
    """A row's label is not one of the classes. ``fault``: the message without its fix."""

    def __init__(self, message: str, fault: str = "") -> None:
        super().__init__(message)
        self.fault = fault


class ModelError(InputError):
    """A weights folder, tokenizer or label space cannot be used."""


class RunFolderError(InputError):
    """The output folder is unwritable or belongs to another experiment."""


class RecordError(InputError):
    """The records of an experiment in MLflow are missing, empty or unfinished, or no run
    matches."""


class UnreachableError(InputError):
    """A Ray or MLflow address does not respond."""


class CheckpointError(DistillError):
    """A checkpoint is missing parts or fails its checksum."""


class CacheError(DistillError):
    """A teacher-cache file fails its checksum."""


class TeacherError(DistillError):
    """A teacher did not respond: no replica left, or none made progress after all retries."""


class TeacherAnswerError(TeacherError):
    """A teacher's output cannot be used for training: wrong shape, NaN or infinite."""


class TrainingError(DistillError):
    """The student's loss became NaN or infinite, or its worker group failed."""


class Interrupted(DistillError):
    """The user asked to stop; a checkpoint was written and the run can be resumed."""

    exit_code = 130


class TeacherAway(Interrupted, TeacherError):
    """No replica of a teacher was up for ``stream.recovery_s``. It may return, so this is a stop
    that can be resumed, as after Ctrl-C."""
