"""Names of the Hugging Face Hub where a path is needed: the message prints the download."""

from pathlib import Path

import pytest

from distill.config import Data
from distill.data.corpus import build_corpus
from distill.errors import DataError, ModelError
from distill.models.adapter import read_adapter
from distill.models.hub import download_command, hub_id
from distill.models.language import check_language_folder
from distill.models.load import check_folder
from distill.models.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("imdb", "imdb"),
        ("stanfordnlp/imdb", "stanfordnlp/imdb"),
        ("distilbert/distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
        ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-1.7B"),
        ("hf://datasets/stanfordnlp/imdb", "stanfordnlp/imdb"),
        (Path("https://huggingface.co/datasets/stanfordnlp/imdb/"), "stanfordnlp/imdb"),
        ("/data/imdb", None),
        ("./imdb", None),
        ("../a/b", None),
        ("~/imdb", None),
        ("a/b/c", None),
        ("imdb.parquet", None),
        ("data/rows.jsonl.gz", None),
        ("expert.pkl", None),
    ],
)
def test_what_can_be_a_name_of_the_hub(path: str, name: str | None) -> None:
    assert hub_id(path) == name


def test_a_path_below_a_folder_that_exists_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub_id("models/mine") == "models/mine"
    Path("models").mkdir()
    assert hub_id("models/mine") is None


def test_the_command_downloads_models_and_data_sets() -> None:
    assert download_command("org/name") == "hf download org/name --local-dir models/name"
    command = "hf download imdb --repo-type dataset --local-dir data/imdb"
    assert download_command("imdb", is_data=True) == command


@pytest.mark.parametrize(
    "read", [check_folder, check_language_folder, load_tokenizer, read_adapter]
)
def test_models_named_like_the_hub_print_the_download(read) -> None:
    command = "hf download distilbert/distilbert-base-uncased --local-dir models/distilbert-base"
    with pytest.raises(ModelError, match="does not contact the Hugging Face Hub") as caught:
        read("distilbert/distilbert-base-uncased")
    assert command in str(caught.value)
    with pytest.raises(ModelError, match=r"/nowhere/x: check the path$"):
        read("/nowhere/x")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("imdb", "imdb"),
        ("stanfordnlp/imdb", "stanfordnlp/imdb"),
        ("hf://datasets/stanfordnlp/imdb", "stanfordnlp/imdb"),
        ("hf://datasets/stanfordnlp/imdb/plain_text/*.parquet", "stanfordnlp/imdb"),
    ],
)
def test_data_named_like_the_hub_prints_the_download(path: str, name: str) -> None:
    """Without a query of the Hub, which the test machine cannot reach."""
    with pytest.raises(DataError, match=r"data\.path") as caught:
        build_corpus(Data(path=path))
    assert "does not contact the H" in str(caught.value)
    assert f"hf download {name} --repo-type dataset --local-dir data/" in str(caught.value)
