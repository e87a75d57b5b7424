"""What a service loads at its start, without what it does not need for its first answer."""

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel
from pydantic.warnings import UnsupportedFieldAttributeWarning


@contextmanager
def light_imports() -> Iterator[None]:
    """Import less and build less meanwhile.

    Pydantic compiles a validator for each model as its module is imported. A service has hundreds,
    the framework's own among them, and needs a dozen soon: those that are defined meanwhile are
    built at their first use. And structlog loads rich, where it happens to be installed, to draw
    tracebacks that are written as text here. The collector of garbage finds none of worth in
    modules, and would look through all of them again and again; it never does afterwards either.
    """
    gc.disable()
    # FastAPI gives a name to the body of a request and ignores this warning while it builds what
    # reads it, which is later now.
    warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
    before = BaseModel.model_config.get("defer_build", False)
    BaseModel.model_config["defer_build"] = True
    without_rich = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        BaseModel.model_config["defer_build"] = before
        if without_rich:
            del sys.modules["rich"]
        gc.freeze()
        gc.enable()
