"""Read by an executed server: makes it one of Carrel's. Inert for any other Jupyter."""

import importlib.util
import json
import os
import sys
import typing as t
from pathlib import Path

SETTINGS_VARIABLE = "CARREL_SERVER"
EXIT_CONFIGURATION = 78
HERE = Path(__file__).resolve().parent


def load(name: str) -> t.Any:
    spec = importlib.util.spec_from_file_location(f"carrel_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018, S101 - a plain file
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def forget_this_directory() -> None:
    """Give kernels and terminals the JUPYTER_CONFIG_PATH that the user would have without us."""
    places = os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep)
    others = [place for place in places if place and Path(place).resolve() != HERE]
    if others:
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(others)
    else:
        os.environ.pop("JUPYTER_CONFIG_PATH", None)


def configure(config: t.Any) -> None:
    # Taken out before anything runs that could inherit it.
    text = os.environ.pop(SETTINGS_VARIABLE, None)
    if text is None:
        return
    from jupyter_server.serverapp import ServerApp

    serving = load("serving")
    settings = serving.ServerSettings(**json.loads(text))
    provider = load("identity").build_provider(settings.secret, settings.hub_prefix)
    serving.prepare(ServerApp, settings, provider)
    config.ServerApp.update(serving.forced_traits(settings, provider))
    load("kernels").keep_kernels_private(serving.set_default)
    if "jupyterlab.labapp" in sys.modules:
        serving.prepare_lab(sys.modules["jupyterlab.labapp"].LabApp, settings)
    forget_this_directory()


try:
    configure(get_config())  # type: ignore[name-defined]  # noqa: F821 - given by traitlets
except Exception as error:
    # Jupyter would log this and go on with its own idea of who may come in.
    reason = f"{type(error).__name__}: {error}"
    sys.stderr.write(
        "[carrel] This server was not started: its Jupyter cannot be set up for Carrel"
        f" ({reason}). Carrel needs jupyter_server 2 or later in the server's environment.\n"
    )
    sys.stderr.flush()
    os._exit(EXIT_CONFIGURATION)
