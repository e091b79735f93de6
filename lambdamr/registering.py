"""The joblib backend is registered when joblib is imported, before or behind lambdamr."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def register() -> None:
    """Register the backend: now, or when joblib is imported. Nothing imports joblib for it."""
    if "joblib" in sys.modules:
        import lambdamr.joblib  # noqa: F401 - registers it
    else:
        sys.meta_path.insert(0, _BehindJoblib())


class _BehindJoblib:
    """Finds joblib as the other finders do, and has the backend imported once it is loaded.

    joblib has no entry points: a backend is known to it only after a call of its own.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "joblib":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        asked = (getattr(finder, "find_spec", None) for finder in others)  # 3.11 bears some without
        found = (find_spec(name, path, target) for find_spec in asked if find_spec is not None)
        spec: ModuleSpec | None = next(filter(None, found), None)
        if spec is None or spec.loader is None:  # not installed, yet
            return spec
        loader, load = spec.loader, spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            del loader.exec_module  # the method of its class again
            load(module)
            register()

        loader.exec_module = load_and_register  # type: ignore[method-assign]  # of this one loader
        return spec
