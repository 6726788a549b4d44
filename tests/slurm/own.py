"""A real SLURM of two nodes on this machine, wholly in a folder of its own: `python -m tests.slurm.own FOLDER`.

Debian's packages are its programs; configuration, key, sockets, state and logs are in the folder, every port is on
loopback, and no service, no /etc and no SLURM of the machine is touched. It keeps no accounts, so sacct knows nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
YES = "SLURM_TRIAL_INSTALL"  # 1: Debian's packages may be installed here, and daemons started
_NODES = ("n1", "n2")
_CONF = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/slurmd.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n1 NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=64000
NodeName=n2 NodeHostName={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=64000
PartitionName=cpu Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str:
    """Why this machine can have none; empty where it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "its daemons need root"
    if os.environ.get("CI") != "true" and os.environ.get(YES) != "1":
        return f"one in a folder of its own may be installed and started only in CI, or with {YES}=1"
    if not all(map(_program, PROGRAMS)) and shutil.which("apt-get") is None:
        return f"{', '.join(PACKAGES)} are not installed, and this is no Debian"
    return ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def install() -> None:
    """Debian's packages, where they are missing; `why_not` has said that this may be done."""
    if all(_program(name) for name in PROGRAMS):
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run(
            ["apt-get", "-qq", *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True
        )


class OwnSlurm:
    """Started on entering, ended with all its jobs on leaving; within, SLURM's commands in this process mean it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()  # short: a socket's path has a hundred characters
        self.daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> OwnSlurm:
        """Install what is missing, write the configuration, start the daemons, wait until both nodes are idle."""
        install()
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        conf = self.folder / "slurm.conf"
        conf.write_text(_CONF.format(host=socket.gethostname().split(".")[0], ports=_ports(3), folder=self.folder))
        self.before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = str(conf)
        try:
            munges = [f"--{kind}-file={self.folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
            self._start("munged", "-F", f"--socket={self.folder}/munge.socket", *munges)
            self._wait_for("munge's socket", (self.folder / "munge.socket").exists)
            self._start("slurmctld", "-D")
            for node in _NODES:
                self._start("slurmd", "-D", "-N", node)
            self._wait_for("two idle nodes", lambda: asked("sinfo", "-h", "-p", "cpu", "-t", "idle", "-o", "%D") == "2")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, name: str, *words: str) -> None:
        program = _program(name)
        assert program is not None, name
        with (self.folder / "daemons.log").open("ab") as log:
            daemon = subprocess.Popen(
                [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.daemons.append(daemon)

    def _wait_for(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                raise RuntimeError(f"no {what}:\n{(self.folder / 'daemons.log').read_text()[-2000:]}")
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        """End the jobs, then the daemons, the last started first."""
        if len(self.daemons) > 2:
            asked("scancel", "--user=root")
            deadline = time.monotonic() + 40  # it kills after 30
            while asked("squeue", "--noheader") and time.monotonic() < deadline:
                time.sleep(0.5)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        if self.before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = self.before


def asked(*command: str) -> str:
    """What a command of SLURM's prints; its complaints are passed over."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def _ports(count: int) -> list[int]:
    """Ports of this machine that are free."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    with OwnSlurm(Path(sys.argv[1])) as slurm:
        print(f"export SLURM_CONF={slurm.folder}/slurm.conf   # until Ctrl-C or SIGTERM", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        signal.pause()
