"""fusionbench: which multimodal fusion method should I use, and is the difference real?"""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# A checkout looks like an installation: `fusionbench.fusers` is found in the top-level folder `fusers/`.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file():
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    """`run`, `compare`, `resolve`, `fit`, `load_model`, `load_records`, `Study`; `from_arrays` and its kin. Lazily."""
    if name == "compare":
        return import_module("fusionbench.notebook").compare
    if name in ("run", "load_records", "Study"):
        return getattr(import_module("fusionbench.study"), name)
    if name == "resolve":
        return import_module("fusionbench.looks").resolve
    if name in ("from_arrays", "from_frame", "from_dataset"):
        return getattr(import_module("fusionbench.custom_data.python"), name)
    if name in ("fit", "load_model"):
        return getattr(import_module("fusionbench.predict"), name)
    raise AttributeError(f"module 'fusionbench' has no attribute {name!r}")
