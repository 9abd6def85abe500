"""The box in which a submission's functions run: bubblewrap's on Linux, a container elsewhere, none with ``--unsafe``.

A box holds, to be read, the interpreter, its packages and this package without the course: no exercise, no solved
notebook, no home, no /proc. Nothing in it can be written; no network, no other process and no terminal is in reach; a
filter lets through the system calls that computing needs, threads among them and new processes not. So the limits that
``worker.py`` sets for itself bound all of a submission. What comes out is read by ``wire.py``, within its bounds.
"""

import ctypes
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dts_mini.core.errors import DTSError
from dts_mini.course import containers

PACKAGE = containers.PACKAGE
START = 120  # seconds: importing torch on a cold disk
BOOT = """
import json, sys, tempfile, types
sys.path[:] = json.loads(sys.argv[1])
tempfile.tempdir = "/tmp"  # torch asks for one that can be written; there is none, and it needs none
import dts_mini
course = types.ModuleType("dts_mini.course")
course.__path__ = [f"{dts_mini.__path__[0]}/course"]
sys.modules[course.__name__] = dts_mini.course = course
from dts_mini.course.worker import main
main()
"""
COMPUTING = """
    read write readv writev pread64 close lseek dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 open openat
    access faccessat faccessat2 readlink readlinkat getcwd getdents getdents64 stat lstat fstat newfstatat statx
    mmap munmap mprotect mremap madvise mincore brk membarrier get_mempolicy set_mempolicy mbind
    futex set_robust_list get_robust_list rseq set_tid_address arch_prctl restart_syscall
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack wait4 execve exit exit_group
    getpid getppid gettid getuid geteuid getgid getegid getgroups uname sysinfo getrlimit getrusage times getcpu
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
"""  # execve: bwrap's own last call; in the box there is no program but the interpreter
ARGUMENTS = {  # calls that are allowed with these arguments alone: (which, mask, value)
    "clone": [(0, 0x10000, 0x10000)],  # CLONE_THREAD; clone3 is unknown here, so that the C library falls back to clone
    "prctl": [(0, 2**64 - 1, 15), (0, 2**64 - 1, 16)],  # a thread's name
    "prlimit64": [(0, 2**64 - 1, 0)],  # of this process
    "ioctl": [(1, 2**32 - 1, number) for number in (0x5401, 0x5450, 0x5451)],  # is it a terminal; close on exec
    "fcntl": [(1, 2**32 - 1, number) for number in (0, 1, 2, 3, 4, 1030)],  # no locks, no leases
}
INSTALL = "apt-get install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora)"
ALLOW = {
    "setting up uid map": "Ubuntu's AppArmor forbids it: apt-get install apparmor-profiles, then ln -s "
    "/usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ and systemctl reload apparmor",
    "namespace": "allow user namespaces: sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1; "
    "in a container that masks them, grade outside of it",
}


@dataclass(frozen=True)
class Engine:
    """``kind``: bubblewrap, docker, podman, container, or none; that is what reports call the isolation."""

    kind: str
    program: str = ""

    def start(self, *command: str) -> tuple[subprocess.Popen, str]:
        """Starts a Python command in a new box; (its process, the name of its container)."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        python = [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c"]
        if self.kind == "none":
            path = json.dumps([*(entry for entry in sys.path if os.path.isabs(entry)), str(PACKAGE.parent)])
            quiet = {"OMP_NUM_THREADS": "1"}
            return subprocess.Popen([*python, *command, path], env=quiet, start_new_session=True, cwd="/", **pipes), ""
        if self.kind == "bubblewrap":
            rules, end = os.pipe()
            try:
                os.write(end, system_call_filter())
                os.close(end)
                box = [self.program, *bubblewrap(rules), *python, *command, json.dumps(python_path())]
                # An empty environment from the start: the first process in the box would keep this one's.
                return subprocess.Popen(box, env={}, pass_fds=[rules], start_new_session=True, **pipes), ""
            finally:
                os.close(rules)
        name = f"dts-mini-{uuid.uuid4().hex[:12]}"
        box = [
            self.program,
            *containers.options(self.kind, name),
            "python",
            "-I",
            "-S",
            "-B",
            "-c",
            *command,
            containers.PATH,
        ]
        return subprocess.Popen(box, start_new_session=True, **pipes), name

    def remove(self, name: str) -> None:
        if name:
            subprocess.run([self.program, "rm", "-f", name], capture_output=True)


def engine(*, unsafe: bool = False) -> Engine:
    """The engine that this machine has, tried once; DTSError in one line where no box can be made."""
    if unsafe:
        return Engine("none")
    if sys.platform != "linux":
        return Engine(*containers.found())
    program = shutil.which("bwrap")
    if program is None:
        raise DTSError(f"no box can be made: bubblewrap is not installed; {INSTALL}; --unsafe grades without")
    found = Engine("bubblewrap", program)
    try:
        process, _ = found.start("print('made')")
        out, said = process.communicate(timeout=START)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DTSError(f"no box can be made: {error}; --unsafe grades without") from error
    if out.strip() != b"made":
        why = " ".join(said.decode(errors="replace").split())[-300:]
        mend = next((mend for part, mend in ALLOW.items() if part in why), "see Grading in notebooks/instructor.md")
        raise DTSError(f"no box can be made: {why}; {mend}; --unsafe grades without")
    return found


def python_path() -> list[str]:
    """Where Python finds its libraries and this package in the box."""
    parts = ("site-packages", "dist-packages", "lib-dynload", Path(os.__file__).parent.name)
    found = [entry for entry in sys.path if os.path.isdir(entry) and os.path.isabs(entry) and entry.endswith(parts)]
    return [*found, str(PACKAGE.parent)]


def bubblewrap(rules: int) -> list[str]:
    """The options of ``bwrap``; ``rules``: a file descriptor of the system call filter.

    Without ``--new-session``: all of a box stays in the one process group that ``Box.kill`` ends. A box in a session of
    its own outlives a kill that comes before it has asked to die with its parent. ``Engine.start`` has left the
    terminal's session already, and the filter knows no call that leaves a group.
    """
    options = ["--unshare-all", "--unshare-user", "--die-with-parent", "--cap-drop", "ALL"]
    options += ["--seccomp", str(rules), "--chdir", "/", "--setenv", "OMP_NUM_THREADS", "1"]
    for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"):
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    libraries = [os.path.join(sys.base_prefix, "lib"), *python_path()[:-1], str(PACKAGE)]
    for path in (os.path.realpath(sys.executable), *libraries):
        options += ["--ro-bind", path, path]
    for path in ("/etc/ld.so.cache", "/proc/cpuinfo"):  # float16 asks what the processor can do
        options += ["--ro-bind-try", path, path]
    for device in (os.devnull, "/dev/urandom"):  # torch opens the second one while it is imported
        options += ["--dev-bind", device, device]
    course = str(PACKAGE / "course")
    copies = {f"{entry}/dts_mini/course" for entry in python_path()}  # one may be installed beside this one
    hidden = [course, *sorted(copy for copy in copies if os.path.isdir(copy) and copy != course)]
    for path in hidden:
        options += ["--tmpfs", path]
    for name in containers.HELD:
        options += ["--ro-bind", f"{course}/{name}", f"{course}/{name}"]
    for path in (*hidden, "/"):
        options += ["--remount-ro", path]
    return options


@cache
def system_call_filter() -> bytes:
    """COMPUTING and ARGUMENTS as a program for the kernel, written by libseccomp; all others do not exist.

    Asked for directly: the one Python binding on PyPI is a thin, unmaintained layer over the five calls below.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise DTSError("no box can be made: libseccomp is not installed; apt-get install libseccomp2") from error

    class Comparison(ctypes.Structure):
        _fields_ = [("which", ctypes.c_uint), ("how", ctypes.c_int), ("mask", ctypes.c_uint64), ("to", ctypes.c_uint64)]

    allow, unknown, masked_equal = 0x7FFF0000, 0x00050000 | errno.ENOSYS, 7
    library.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(unknown)))
    for name in (*COMPUTING.split(), *ARGUMENTS):
        number = library.seccomp_syscall_resolve_name(name.encode())
        for rule in ARGUMENTS.get(name, [None]) if number >= 0 else ():  # not every machine has every call
            rules = [] if rule is None else [Comparison(rule[0], masked_equal, *rule[1:])]
            array = (Comparison * len(rules))(*rules)
            if library.seccomp_rule_add_array(filter_, ctypes.c_uint32(allow), number, len(rules), array):
                raise DTSError(f"no box can be made: libseccomp refuses a rule for {name}")
    with tempfile.TemporaryFile() as file:
        if library.seccomp_export_bpf(filter_, file.fileno()):
            raise DTSError("no box can be made: libseccomp writes no filter")
        library.seccomp_release(filter_)
        file.seek(0)
        return file.read()
