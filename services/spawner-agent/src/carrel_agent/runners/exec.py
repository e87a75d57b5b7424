"""The exec runner: the keeper forks, and the child executes the server's command."""

import os

from carrel_agent.keeper.channel import ChannelClosedError, RefusedError
from carrel_agent.runners.base import (
    Launch,
    Launched,
    LaunchUnclearError,
    RunnerUnavailableError,
    sealed_spec,
)
from carrel_agent.runners.processes import ProcessRunner


class ExecRunner(ProcessRunner):
    """Executes the command of the spec, or the host's JupyterLab where it names none."""

    name = "exec"

    async def launch(self, launch: Launch) -> Launched:
        """Have the keeper start it."""
        spec = sealed_spec(launch.spec)
        try:
            pid, start_ticks = await self._keeper.execute(
                launch.spec.server_id, spec, launch.listener
            )
        except RefusedError as error:
            raise RunnerUnavailableError(f"the keeper could not start it: {error}") from error
        except ChannelClosedError as error:
            raise LaunchUnclearError(str(error)) from error
        finally:
            os.close(spec)
        return Launched(pid, start_ticks)
