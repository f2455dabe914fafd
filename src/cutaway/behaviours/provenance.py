"""What an artifact says about where it came from: versions, files, tokenizers."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any


def version() -> str:
    """The installed version of Cutaway."""
    try:
        return metadata.version("cutaway")
    except metadata.PackageNotFoundError:
        return "not installed"


def file_origin(kind: str, path: Path) -> dict[str, object]:
    """A file's kind, name and hash."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"source": kind, "file": path.name, "sha256": digest}


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A short hash of what decides how text becomes ids; equal tokenizers share it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: object = sorted(tokenizer.get_vocab().items())
    else:
        # a tokenizer keeps the padding and truncation of its last call; they decide nothing here
        rules = {
            key: value
            for key, value in json.loads(backend.to_str()).items()
            if key not in ("padding", "truncation")
        }
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    text = json.dumps([rules, special], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
