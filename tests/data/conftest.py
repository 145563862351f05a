"""A tiny tokenizer, and data sections with a cache of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_rows import save_tokenizer

from distill.config import Data


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., Data]:
    """A data section with the columns of ``make_rows`` and a cache of its own."""

    def make(path: Path | str | tuple[str, ...], **settings: Any) -> Data:
        columns = {"domain": "domain", "split": "split"} | settings.pop("columns", {})
        where = tuple(path) if isinstance(path, tuple) else str(path)
        settings.setdefault("cache_dir", str(tmp_path / "cache"))
        return Data.model_validate({"path": where, "columns": columns, **settings})

    return make
