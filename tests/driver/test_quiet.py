"""Only the named lines of other libraries are silenced."""

from __future__ import annotations

import logging
import warnings

import pytest

from distill.driver.quiet import silence

ACCELERATOR = (
    "Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it."
)


def test_deepspeed_logs_everything_but_the_missing_accelerator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    silence()
    silence()
    logger = logging.getLogger("DeepSpeed")
    with caplog.at_level(logging.WARNING, "DeepSpeed"):
        logger.addHandler(caplog.handler)  # DeepSpeed ends propagation once it is imported
        logger.warning(ACCELERATOR)
        logger.warning("the optimizer state is %s", "lost")
        logger.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"the optimizer state is lost"}
    assert len(logger.filters) == 1


def test_a_warning_of_the_same_class_is_still_printed() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence()
        warnings.warn(
            "Tip: In future versions of Ray, Ray will no longer override accelerator visible "
            "devices env var if num_gpus=0",
            FutureWarning,
            stacklevel=1,
        )
        warnings.warn("the default of batch_size will change", FutureWarning, stacklevel=1)
    assert [str(w.message) for w in seen] == ["the default of batch_size will change"]
