"""Kernels for notebooks, forked from a process that has imported the library."""

import os
from pathlib import Path
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

from tests.support.processes import PROCESSES


def kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """A kernel in a folder, for a process of its own."""
    os.environ.update(environment)
    os.chdir(folder)
    # It ends when the server that forked it does.
    IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


class ForkedProcess:
    """The part of `subprocess.Popen` that looks after a kernel."""

    stdin = stdout = stderr = None

    def __init__(self, *arguments: object) -> None:
        self._process = PROCESSES.Process(target=kernel, args=arguments)
        self._process.start()
        self.kill, self.terminate = self._process.kill, self._process.terminate

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class _ForkedKernel(LocalProvisioner):
    async def launch_kernel(self, cmd: list[str], **options: Any) -> dict[str, Any]:
        _, _, launcher, *arguments = cmd  # python -m ipykernel_launcher ...
        assert launcher == "ipykernel_launcher"
        # It is in the process group of the tests, which no signal should reach: `pgid` stays None.
        self.process = ForkedProcess(arguments, options["cwd"], options["env"])
        self.pid, self.cwd = self.process.pid, Path(options["cwd"])
        return self.connection_info


class ForkedKernelManager(AsyncKernelManager):
    """Manager of one kernel, with the library imported and the namespace as in any new kernel."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.provisioner = _ForkedKernel(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self
        )
