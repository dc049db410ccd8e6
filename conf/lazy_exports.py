"""Import the exported names of a package on first use (PEP 562), so that commands that need no model start at once."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: The package's `__name__`.
        modules: The module, relative to the package, that defines each exported name.
    """

    def get_attribute(name: str) -> Any:
        if name in modules:
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package} has no attribute {name}")

    return get_attribute
