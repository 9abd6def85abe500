"""The box, attacked: reading, writing, programs, native code, network, memory, processes, time, killing, replies.

Each attack is a function of a submission, and gives something back only where it got what it was after.
"""

import ast
import base64
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from dts_mini.core.errors import DTSError
from dts_mini.course import containers, sandbox, wire
from dts_mini.course.box import Box, Lost
from dts_mini.course.sandbox import Engine, engine

ROOT = Path(__file__).resolve().parents[2]
COURSE = str(ROOT / "dts_mini/course")
try:
    MADE_BY = engine()
except DTSError as error:
    MADE_BY = error
needs_box = pytest.mark.skipif(isinstance(MADE_BY, DTSError), reason=f"the campaign of attacks needs boxes: {MADE_BY}")

READ = {
    "the exercises": f"return open({COURSE!r} + '/exercises/nb00_start_here.py').read()",
    "the checks": f"return open({COURSE!r} + '/exercise.py').read()",
    "compiled exercises": f"import glob\nreturn glob.glob({COURSE!r} + '/**/*.pyc', recursive=True) or None",
    "the exercises, imported": "from dts_mini.course.exercises import EXERCISES\nreturn str(EXERCISES)",
    "the exercises, by the import system": (
        "import importlib.util\nreturn str(importlib.util.find_spec('dts_mini.course.exercises')) "
        "if importlib.util.find_spec('dts_mini.course.exercises') else None"
    ),
    "a file through torch": (
        f"return torch.from_file({COURSE!r} + '/grade.py', shared=False, size=9, dtype=torch.uint8)"
    ),
    "a file through numpy": f"import numpy\nreturn bytes(numpy.fromfile({COURSE!r} + '/grade.py', dtype='uint8'))",
    "a file through C": (
        f"import ctypes\nf = ctypes.CDLL(None).open({COURSE!r}.encode() + b'/grade.py', 0)\n"
        f"return f if f >= 0 else None"
    ),
    "the solved notebooks": f"import os\nreturn os.listdir({str(ROOT)!r} + '/notebooks')",
    "the tests and the repository": (
        # .venv stands there where the interpreter does, whose packages a box has
        f"import os\nreturn [n for n in os.listdir({str(ROOT)!r}) if n not in ('dts_mini', '.venv')] or None"
    ),
    "any notebook anywhere": (
        "import os\nreturn [n for d, _, names in os.walk('/') for n in names if n.endswith('.ipynb')][:3] or None"
    ),
    "any home": "import os\nreturn [d for d in ('/home', '/root') if os.path.isdir(d) and any("
    "n for _, _, n in os.walk(d) if 'py' not in d and n and '.bashrc' in n)] or None",
    "the teacher's file": "return open('VICTIM').read()",
    "accounts": "return open('/etc/passwd').read()",
    "the environment": (
        "import os\nreturn {k: v for k, v in os.environ.items() if 'SECRET' in k or 'token' in v} or None"
    ),
    "an environment in /proc": "import glob\nreturn glob.glob('/proc/*/environ') or None",
    "its own memory file": "return open('/proc/self/mem', 'rb').fileno()",
    "who runs": "import os\nreturn [n for n in os.listdir('/proc') if n != 'cpuinfo'] or None",
    "the kernel's log": "return open('/dev/kmsg').read(1)",
    "temporary files": "import os\nreturn os.listdir('/tmp') or None",
    "other file descriptors": (
        "import os\nopen_ = []\nfor n in range(3, 64):\n    try:\n        os.fstat(n)\n        open_.append(n)\n"
        # the two pipes and the null device
        "    except OSError:\n        pass\nreturn open_ if len(open_) > 3 else "
        "None"
    ),
}
WRITE = {
    "in the root": "open('/x', 'w')\nreturn 'made'",
    "in /tmp": "open('/tmp/x', 'w')\nreturn 'made'",
    "in the course": f"open({COURSE!r} + '/exercise.py', 'w')\nreturn 'made'",
    "in the core": f"open({str(ROOT / 'dts_mini/core/errors.py')!r}, 'a').write('#')\nreturn 'written'",
    "in the worker": f"open({COURSE!r} + '/worker.py', 'r+').write('#')\nreturn 'written'",
    "in torch": "import os\nos.open(torch.__file__, os.O_RDWR)\nreturn 'opened'",
    "the interpreter": "import sys\nopen(sys.executable, 'r+b')\nreturn 'opened'",
    "shared memory of torch": "return torch.from_file('/x', shared=True, size=4, dtype=torch.uint8)",
    "a folder": "import os\nos.mkdir('/d')\nreturn 'made'",
    "a link": "import os\nos.symlink('/', '/l')\nreturn 'made'",
    "a hard link": "import os\nos.link(torch.__file__, '/l')\nreturn 'made'",
    "a pipe with a name": "import os\nos.mkfifo('/p')\nreturn 'made'",
    "another name": f"import os\nos.rename({COURSE!r} + '/wire.py', {COURSE!r} + '/w')\nreturn 'renamed'",
    "away": f"import os\nos.remove({COURSE!r} + '/wire.py')\nreturn 'removed'",
    "modes": "import os\nos.chmod(torch.__file__, 0o777)\nreturn 'changed'",
    "modes of a device": "import os\nos.fchmod(1, 0o777)\nreturn 'changed'",
    "owners": "import os\nos.chown(torch.__file__, 1, 1)\nreturn 'changed'",
    "times": "import os\nos.utime(torch.__file__)\nreturn 'changed'",
    "attributes": "import os\nos.setxattr(torch.__file__, 'user.x', b'1')\nreturn 'set'",
    "a shorter file": "import os\nos.truncate(torch.__file__, 0)\nreturn 'cut'",
    "a file in memory": "import os\nreturn os.memfd_create('x')",
    "shared memory": (
        "from multiprocessing import shared_memory\nreturn shared_memory.SharedMemory(create=True, size=9).name"
    ),
    "a file through torch.save": "torch.save(1, '/tmp/x')\nreturn 'saved'",
    "a mapped library": (
        "import mmap\nf = open(torch.__file__, 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_WRITE | mmap.PROT_READ)\n"
        "m[0:1] = b'#'\nreturn 'written'"
    ),
    "a lock on a library": "import fcntl\nfcntl.flock(open(torch.__file__), fcntl.LOCK_EX)\nreturn 'locked'",
    "a lease on a library": "import fcntl\nfcntl.fcntl(open(torch.__file__), 1024, 0)\nreturn 'leased'",
    "a new root": "import os\nos.chroot('/usr')\nreturn 'changed'",
}
PROGRAMS = {
    "a shell": "import os\nreturn 'ran' if os.system('true') == 0 else None",
    "C's system": "import ctypes\nreturn 'ran' if ctypes.CDLL(None).system(b'true') == 0 else None",
    "a subprocess": "import subprocess, sys\nreturn subprocess.run([sys.executable, '-c', '1']).returncode",
    "a spawned process": "import os, sys\nreturn os.posix_spawn(sys.executable, ['x'], {})",
    "a fork": "import os\nchild = os.fork()\nif not child:\n    os._exit(0)\nreturn child",
    "a fork of C": (
        "import ctypes\nn = ctypes.CDLL(None).fork()\nif n == 0:\n    ctypes.CDLL(None)._exit(0)\n"
        "return n if n > 0 else None"
    ),
    "a raw clone": (
        "import ctypes\nn = ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0)\nif n == 0:\n"
        "    ctypes.CDLL(None)._exit(0)\n"
        "return n if n > 0 else None"
    ),
    "a terminal": "import pty\nreturn pty.fork()[0]",
    "multiprocessing": "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()\nreturn p.pid",
    "a pool": (
        "from concurrent.futures import ProcessPoolExecutor\nreturn ProcessPoolExecutor(1).submit(abs, 1).result(3)"
    ),
    "programs at all": (
        "import glob\nreturn glob.glob('/bin/*') + glob.glob('/usr/bin/*sh') + glob.glob('/sbin/*') or None"
    ),
}
NETWORK = {
    "TCP": "import socket\nreturn socket.create_connection(('1.1.1.1', 53), 2).fileno()",
    "UDP": "import socket\nreturn socket.socket(socket.AF_INET, socket.SOCK_DGRAM).fileno()",
    "a UNIX socket": "import socket\nreturn socket.socket(socket.AF_UNIX).fileno()",
    "netlink": "import socket\nreturn socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).fileno()",
    "vsock": "import socket\nreturn socket.socket(socket.AF_VSOCK).fileno()",
    "a pair of sockets": "import socket\nreturn str(socket.socketpair())",
    "a raw socket": "import ctypes\nn = ctypes.CDLL(None).socket(2, 3, 1)\nreturn n if n >= 0 else None",
    "the web": "import urllib.request\nreturn urllib.request.urlopen('http://example.com', timeout=2).read()",
    "a name": "import socket\nreturn socket.gethostbyname('example.com')",
    "asyncio": "import asyncio\nreturn asyncio.run(asyncio.sleep(0, 'ran'))",  # its loop wants a pair of sockets
}
MEMORY = {
    "a list": "return len([0] * 10**10)",
    "a tensor": "return torch.ones(10**10).sum().item()",
    "bytes": "return len(bytes(2**32))",
    "shared pages": "import mmap\nreturn len(mmap.mmap(-1, 2**32))",
    "reserved pages": (
        "import mmap\nreturn len(mmap.mmap(-1, 2**33, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000))"
    ),
    "little by little": "kept = []\nwhile len(kept) < 300:\n    kept.append(bytearray(10**7))\nreturn len(kept)",
    "a higher limit": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nreturn 'raised'",
    "a higher limit for time": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\nreturn 'raised'",
    "files without end": "import os\nreturn [os.dup(1) for _ in range(200)][-1]",
    "a core dump": "import resource\nresource.setrlimit(resource.RLIMIT_CORE, (-1, -1))\nreturn 'raised'",
    "locked memory": "import ctypes\nreturn 'locked' if ctypes.CDLL(None).mlockall(3) == 0 else None",
    "System V memory": "import ctypes\nn = ctypes.CDLL(None).shmget(0, 2**20, 0o1600)\nreturn n if n >= 0 else None",
}
KILLING = {
    "the first process": "import os\nos.kill(1, 9)\nreturn 'sent'",
    "its parent": "import os\nos.kill(os.getppid(), 9)\nreturn 'sent'",
    "all": "import os\nos.kill(-1, 9)\nreturn 'sent'",
    "the group": "import os\nos.killpg(0, 9)\nreturn 'sent'",
    "a thread of the first process": "import ctypes\nreturn 'sent' if ctypes.CDLL(None).tgkill(1, 1, 9) == 0 else None",
    "by a process's file": "import os, signal\nreturn signal.pidfd_send_signal(os.pidfd_open(1), 9)",
    "limits of the first process": "import resource\nreturn resource.prlimit(1, resource.RLIMIT_CPU, (1, 1))",
    "its own end, put off": "import ctypes\nreturn 'set' if ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0 else None",
    "tracing the first process": (
        "import ctypes\nreturn 'traced' if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else None"
    ),
    "other processors": "import os\nos.sched_setaffinity(0, range(64))\nreturn 'set'",
    "priorities": "import os\nreturn os.nice(-5)",
    "the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)\nreturn 'set'",
    "the host's name": "import socket\nsocket.sethostname('mine')\nreturn 'set'",
    "a user namespace": "import ctypes\nreturn 'made' if ctypes.CDLL(None).unshare(0x10000000) == 0 else None",
    "a mount": (
        "import ctypes\nreturn 'made' if ctypes.CDLL(None).mount(b'none', b'/usr', b'tmpfs', 0, 0) == 0 else None"
    ),
    "a mount again, to be written": (
        "import ctypes\nreturn 'made' if ctypes.CDLL(None).mount(0, b'/', 0, 4128, 0) == 0 else None"
    ),
}
NATIVE = {
    # every system call that is not on the list, by its number; those on it have other tests
    "any other system call": (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nworked = []\nfor n in range(600):\n"
        "    if n in ALLOWED:\n        continue\n    ctypes.set_errno(0)\n"
        "    if libc.syscall(n, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 38:\n"
        "        worked.append(n)\nreturn worked or None"
    ),
    "terminals": "import fcntl\nfcntl.ioctl(1, 0x5412, b'x')\nreturn 'typed'",
}
HONEST = {  # what a box has to let through
    "threads": (
        "import threading\nfound = []\nt = threading.Thread(target=lambda: found.append(1))\nt.start()\n"
        "t.join()\nreturn found[0]"
    ),
    "float16": "return (torch.ones(8, 8, dtype=torch.float16) @ torch.ones(8, 8, dtype=torch.float16)).sum().item()",
    "bfloat16": "return torch.ones(3, dtype=torch.bfloat16).sum().item()",
    "linear algebra": "return torch.linalg.svd(torch.eye(40)).S.sum().item()",
    "scipy": "import scipy.linalg, numpy\nreturn float(scipy.linalg.norm(numpy.eye(4)))",
    "the core": "from dts_mini.core import errors\nreturn errors.DTSError.__name__",
    "what a notebook imports": (
        "from dts_mini.course import check, claim, figures, hint, show, sliders\nreturn check(3)"
    ),
    "printing": "import sys\nprint('passed', file=sys.stderr)\nprint('passed')\nreturn 1",
    "random numbers": "import random, os\nreturn len(os.urandom(4)) + random.random()",
    "time": "import time\ntime.sleep(0.01)\nreturn time.time()",
    "autograd": "x = torch.ones(3, requires_grad=True)\n(x * x).sum().backward()\nreturn x.grad",
    "a large matrix": "return (torch.ones(2000, 2000) @ torch.ones(2000, 2000))[0, 0].item()",
}
CAMPAIGN = {
    f"{kind}: {name}": attack
    for kind, attacks in (
        ("read", READ),
        ("write", WRITE),
        ("program", PROGRAMS),
        ("network", NETWORK),
        ("memory", MEMORY),
        ("kill", KILLING),
        ("native", NATIVE),
    )
    for name, attack in attacks.items()
}


def numbers() -> set[int]:
    """The numbers of the system calls that a box lets through, on this machine."""
    resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name
    passed_on = {335, 336}  # uretprobe and uprobe go by every filter, and end who calls them
    return {resolve(name.encode()) for name in (*sandbox.COMPUTING.split(), *sandbox.ARGUMENTS)} | passed_on


def filled(
    functions: dict[str, str], memory: int = 600, cpu: int = 60, box: Box | None = None
) -> tuple[Box, dict[str, str]]:
    """A box with functions of these bodies, and what each is called there."""
    names = {name: f"attack_{number}" for number, name in enumerate(functions)}
    cells = [f"def {names[name]}():\n{textwrap.indent(body, '    ')}" for name, body in functions.items()]
    cells = ["import torch", *cells]
    data = json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}).encode()
    box = box or Box(MADE_BY)
    box.wait()
    order = {"names": list(names.values()), "memory": memory * 2**20, "cpu": cpu}
    told = box.ask(order | {"notebooks": [["attack.ipynb", base64.b64encode(data).decode()]]}, 30)
    assert not told["errors"] and set(told["found"]) == set(names.values()), told
    return box, names


def said(box: Box, name: str, seconds: float = 20):
    """What a function gives back, or its exception as text."""
    values = wire.Values()
    reply = box.ask({"name": name, "arguments": values.pack((), views=True)}, seconds)
    return values.unpack(reply["value"]) if "raised" not in reply else reply["raised"]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """What each attack got, all in one box, and the file that some are after."""
    victim = tmp_path_factory.mktemp("home") / "victim.txt"
    victim.write_text("untouched")
    os.environ["SECRET"] = "token"
    try:
        fill = lambda body: body.replace("VICTIM", str(victim)).replace("ALLOWED", repr(numbers()))
        attacks = {name: fill(body) for name, body in CAMPAIGN.items()}
        box, names = filled(attacks | {"the end": "return 'still there'"})
        try:
            got = {name: said(box, names[name]) for name in (*attacks, "the end")}
        finally:
            box.close()
    finally:
        del os.environ["SECRET"]
    assert victim.read_text() == "untouched"
    return got


@needs_box
@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGN)
def test_an_attack_gets_nothing(attacked, name):
    got = attacked[name]
    assert got is None or isinstance(got, list), got  # a list is an exception: its name, its text, its line
    assert got is None or got[0].endswith(("Error", "Exception", "Interrupt")) or got[0] in ("error", "gaierror")
    assert not got or got[0] not in ("NameError", "SyntaxError", "IndentationError", "UnboundLocalError"), got


@needs_box
@pytest.mark.slow
def test_after_the_campaign_the_box_still_answers(attacked):
    assert attacked["the end"] == "still there"


@needs_box
@pytest.mark.slow
def test_honest_work_is_let_through():
    box, names = filled(HONEST)
    try:
        got = {name: said(box, names[name]) for name in HONEST}
    finally:
        box.close()
    assert not {name: value for name, value in got.items() if isinstance(value, list) or value is None}


# --- those that end the box ---

ENDING = {
    "a loop without end": ("while True:\n    pass", "no answer"),
    "a broken pointer": ("import ctypes\nctypes.string_at(0)", "ended"),
    "closed pipes": ("import os\nos.closerange(3, 64)\nimport time\ntime.sleep(100)", "no answer"),
    "an answer without end": (
        "import os\nwhile True:\n    for n in range(3, 64):\n        try:\n            os.write(n, b'[' * 10**6)\n"
        "        except OSError:\n            pass",
        "more than 4 MiB",
    ),
    "two answers": (
        "import os\nfor n in range(3, 64):\n    try:\n        os.write(n, b'{\"value\": 1}\\n' * 2)\n"
        "    except OSError:\n        pass\nreturn 1",
        "more often",
    ),
    "another program": (
        "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'import os; os.write(1, b\"x\" * 9)'])",
        "ended",
    ),
    "the system calls of another kind": (  # mov eax, 20; int 0x80; ret: the 32 bits' way to the kernel
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('b814000000cd80c3'))\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nreturn f()",
        "ended",
    ),
}


@needs_box
@pytest.mark.slow
def test_what_ends_a_box_costs_that_box_alone():
    ahead = Box(MADE_BY)
    for name, (body, word) in ENDING.items():
        if name == "the system calls of another kind" and os.uname().machine != "x86_64":
            continue
        box, names = filled({name: body}, box=ahead)
        ahead = Box(MADE_BY)  # starts while this one is waited for
        with pytest.raises(Lost, match=word):
            got = said(box, names[name], seconds=1.5)
            raise AssertionError(f"{name}: {got}")
        box.close()
        assert box.process.returncode is not None, name
    ahead.close()


@needs_box
@pytest.mark.slow
def test_time_and_threads_are_bounded():
    box, names = filled(
        {
            "threads": "import threading, time\nthreads = []\ntry:\n    while len(threads) < 20000:\n"
            "        t = threading.Thread(target=time.sleep, args=(30,), daemon=True)\n        t.start()\n"
            "        threads.append(t)\nexcept RuntimeError:\n    pass\nreturn len(threads)",
            "time": "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
            "    except (OSError, ValueError):\n        pass\nwhile True:\n    pass",
        },
        cpu=2,
    )
    try:
        assert said(box, names["threads"]) < 600
        begun = time.monotonic()
        with pytest.raises(Lost, match=r"processor time|was killed"):
            said(box, names["time"], seconds=60)
        assert time.monotonic() - begun < 50
    finally:
        box.close()


@needs_box
def test_the_box_has_an_empty_environment_from_its_start(monkeypatch):
    """Of bwrap's own first process, too, whose environment /proc would show."""
    monkeypatch.setenv("SECRET", "token")
    process, _ = MADE_BY.start("import os; print(sorted(os.environ)); input()")
    try:
        set_ = {"LC_CTYPE", "OMP_NUM_THREADS", "PWD"}  # by Python, the box and bwrap
        assert set(ast.literal_eval(process.stdout.readline().decode())) <= set_
        assert Path(f"/proc/{process.pid}/environ").read_bytes() == b""
    finally:
        process.kill()
        process.communicate()


@needs_box
def test_a_box_ends_with_the_process_that_started_it():
    code = (
        "import os, sys, time\nfrom dts_mini.course.sandbox import engine\n"
        "process, _ = engine().start('import time; print(1, flush=True); time.sleep(100)')\n"
        "process.stdout.readline()\nprint(process.pid, flush=True)\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    pid = int(done.stdout)
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1]:
            return
        time.sleep(0.1)
    pytest.fail("the box outlived the grader")


@pytest.mark.skipif(getattr(MADE_BY, "kind", "") != "bubblewrap", reason=f"needs a box of bubblewrap: {MADE_BY}")
def test_all_of_a_box_is_in_the_group_that_ends_it():
    """So that a kill at any time ends it, however far it has started: what is in another session may outlive one."""
    process, _ = MADE_BY.start("print('here', flush=True); input()")
    try:
        assert process.stdout.readline() == b"here\n"
        of_box = {process.pid}
        for _ in range(3):  # bwrap, the first process in the box, the interpreter
            of_box |= {int(pid) for pid, (parent, _) in processes().items() if int(parent) in of_box}
        groups = {group for pid, (_, group) in processes().items() if int(pid) in of_box}
        assert len(of_box) == 3 and groups == {str(process.pid)}
    finally:
        process.kill()
        process.communicate()


def processes() -> dict[str, list[str]]:
    """Of each process here: its parent and its group."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            found[folder.name] = (folder / "stat").read_text().rsplit(")")[-1].split()[1:3]
    return found


# --- replies: what a box writes is never trusted ---


def replying(line: bytes, file: Path) -> Box:
    """A box that says it is ready and answers with these bytes."""
    code = "import sys\nprint('{}', flush=True)\nsys.stdin.readline()\n"
    code += "sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())\nsys.stdout.flush()"
    file.write_bytes(line)
    box = object.__new__(Box)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    box.engine, box.rest, box.name, box.ready_by = Engine("none"), b"", "", time.monotonic() + 30
    box.process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code, file], start_new_session=True, **pipes)
    box.input, box.output = box.process.stdin.fileno(), box.process.stdout.fileno()
    box.wait()
    return box


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"no JSON\n", "no known form"),
        (b"\xff\xfe\n", "no known form"),
        (b"[" * 99_000 + b"\n", "no known form"),
        (b"[" + b"1," * 200_000 + b"1]\n", "no known form"),
        (b'{"a":' * 90_000 + b"1" + b"}" * 90_000 + b"\n", "no known form"),
        (json.dumps({str(n): n for n in range(20_000)}).encode() + b"\n", "no known form"),
        (b"1" * 10_000 + b"\n", "no known form"),
        (b'"' + b"x" * 5_000_000 + b'"\n', "more than 4 MiB"),
        (b'{"value": 1}', "ended"),
        (b"", "ended"),
        (b'{"value": 1}\n{"value": 1}\n', "more often"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_reply_out_of_bounds_is_no_reply(line, word, tmp_path):
    box = replying(line, tmp_path / "reply")
    begun = time.monotonic()
    try:
        with pytest.raises(Lost, match=word):
            box.ask({}, 20)
    finally:
        box.close()
    assert time.monotonic() - begun < 5


@needs_box
def test_an_installed_copy_of_the_course_is_hidden_too(tmp_path, monkeypatch):
    exercises = tmp_path / "site-packages/dts_mini/course/exercises"
    exercises.mkdir(parents=True)
    (exercises / "nb00.py").write_text("solution")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site-packages")])
    inside, beside = str(exercises), str(tmp_path / "site-packages/dts_mini")
    code = f"import os; print(os.listdir({beside!r}), os.path.exists({inside!r}))"
    assert MADE_BY.start(code)[0].communicate(timeout=60)[0].decode().strip() == "['course'] False"


# --- where no box can be made ---


def test_without_bubblewrap_it_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(DTSError, match=r"bubblewrap is not installed; apt-get install.*--unsafe") as refused:
        engine()
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")
@pytest.mark.parametrize(
    ("says", "mend"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("bwrap: No permissions to create a new namespace, likely because the kernel does not allow", "sysctl"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "sysctl"),
        ("bwrap: something new", "notebooks/instructor.md"),
    ],
)
def test_a_system_that_allows_no_box_is_told_why_and_how_to_allow_it(monkeypatch, tmp_path, says, mend):
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: str(fake))
    with pytest.raises(DTSError, match="no box can be made") as refused:
        engine()
    assert says in str(refused.value) and mend in str(refused.value) and "\n" not in str(refused.value)


def test_without_bubblewrap_and_containers_another_system_refuses(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(DTSError, match="docker, podman or Apple's container"):
        engine()


@pytest.mark.parametrize("kind", ["docker", "podman", "container"])
def test_a_container_has_no_network_and_nothing_to_write(kind):
    options = containers.options(kind, "box")
    words = " ".join(options)
    for held in ("--network none", "--read-only", "--cap-drop ALL", "--memory", "--user 65534:65534", "--rm"):
        assert held in words
    assert "--pids-limit 64" in words or "--ulimit nproc=64" in words
    assert not {"-v", "--volume", "--mount", "--privileged"} & set(options) and options[-1] == containers.image()


@pytest.mark.slow
def test_a_container_is_asked_over_the_same_pipe_and_removed(tmp_path, monkeypatch):
    """With a program in docker's place that runs the worker here."""
    path = json.dumps([*filter(os.path.isabs, sys.path), str(ROOT)])
    fake = tmp_path / "docker"
    fake.write_text(
        f"#!/bin/sh\ncase $1 in\nimage) exit 0;;\nrm) echo $3 >> {tmp_path}/removed;;\n"
        f"run) while [ $1 != python ]; do shift; done\nexec {sys.executable} $2 $3 $4 $5 \"$6\" '{path}';;\nesac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: str(fake) if name == "docker" else None)
    found = engine()
    assert found == Engine("docker", str(fake))
    box = Box(found)
    box.wait()
    told = box.ask({"names": [], "memory": 2**30, "cpu": 60, "notebooks": [["a", "e30="]]}, 30)
    box.close()
    assert "is no notebook" in told["reasons"][0] and (tmp_path / "removed").read_text().strip() == box.name


def test_a_system_without_the_image_is_told_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: "false" if name == "podman" else None)
    with pytest.raises(
        DTSError, match=r"podman has no image dts-mini-grade:\w+; make it once.*dts_mini.course.containers"
    ):
        engine()


def test_an_image_holds_no_exercise(tmp_path):
    containers.build_context(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in files if "course" in name} == {f"dts_mini/course/{name}" for name in containers.HELD}
    assert "dts_mini/core/errors.py" in files and not any(name.endswith(".ipynb") for name in files)
    text = (tmp_path / "Dockerfile").read_text()
    assert "COPY dts_mini" in text and all(name in text for name in containers.LIBRARIES)


def test_what_runs_in_a_box_knows_no_exercise():
    for name in containers.HELD:
        text = (ROOT / "dts_mini/course" / name).read_text()
        assert "course.exercise" not in text and "course.grade" not in text


def test_unsafe_is_an_engine_that_says_so():
    assert engine(unsafe=True).kind == "none"
    assert torch.ones(1).item() == 1
