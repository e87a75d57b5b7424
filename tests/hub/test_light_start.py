"""What a hub that serves does not load: each of these costs its restarts a part of a second."""

import subprocess
import sys

NOT_NEEDED = {"alembic", "cryptography", "httpx", "jinja2", "rich"}

START = """
import sys
from carrel_shared.deferred import light_imports
with light_imports():
    import carrel_hub.serve
print(*sys.modules)
"""


def test_a_start_loads_nothing_that_waits() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", START], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "carrel_hub.serve" in loaded
    assert loaded & NOT_NEEDED == set()


MODELS = """
from carrel_shared.deferred import light_imports
with light_imports():
    from carrel_shared.wire.servers import StopRequest
    from carrel_hub.db.models import User
from carrel_shared.wire.agents import Running
print(StopRequest.__pydantic_complete__, User.__pydantic_complete__)
print(StopRequest.model_validate_json('{"generation": 3, "reason": ""}').generation)
print(StopRequest.__pydantic_complete__)
"""


def test_models_are_built_at_their_first_use() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", MODELS], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["False False", "3", "True"]
