# SPDX-License-Identifier: MIT OR Apache-2.0
"""A broker of the test's own, users, and a witness who takes the time."""

import contextlib
import ctypes
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

import mptcpapi

import wire

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
DAEMON = os.environ.get("MPTCPAPID", os.path.join(TOP, "build", "mptcpapid"))
STRICT = bool(os.environ.get("BROKER_STRICT"))
MUCH = bool(os.environ.get("BROKER_MUCH"))
SERVER = "10.9.0.1"
PATHS = ["10.1.0.1", "10.2.0.1", "10.3.0.1"]

# Users: one who behaves, others who don't. Nobody else's: what a user has
# under way in Unix sockets is counted for the whole machine.
GOOD = int(os.environ.get("BROKER_USERS", 1_000_000))
EVIL = GOOD + 1


def backed(path):
    """This process asks that broker."""
    os.environ["MPTCPAPI_BROKER"] = path
    os.environ["MPTCPAPI_BACKEND"] = "broker"


def until(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.002)


def path_manager():
    for name in ("path_manager", "pm_type"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/net/mptcp/{name}") as file:
            return file.read().strip()
    raise AssertionError("no path manager to choose")


def choose(manager):
    """What path_manager() tells."""
    name = "pm_type" if manager.isdigit() else "path_manager"
    with open(f"/proc/sys/net/mptcp/{name}", "w") as file:
        file.write(manager)


class Broker:
    """mptcpapid on a socket in a directory of its own."""

    def __init__(self, policy="", options=(), directory=None, limits=None, name="socket"):
        self.kept = None if directory else tempfile.TemporaryDirectory(prefix="broker.")
        self.directory = directory or self.kept.name
        os.chmod(self.directory, 0o755)
        self.path = os.path.join(self.directory, name)
        self.config = os.path.join(self.directory, "conf")
        with open(self.config, "w") as file:
            file.write(policy)
        self.words = self.path + ".words"
        self.options = ["--socket", self.path, "--config", self.config, *options]
        self.limits = limits
        self.process = None
        self.start()

    def start(self, wait=True):
        with open(self.words, "ab") as words:
            self.process = subprocess.Popen([DAEMON, *self.options], stdin=subprocess.DEVNULL, stderr=words,
                                            preexec_fn=self.limits)
        if wait:
            until("the broker answers", self.answers)

    def answers(self):
        assert self.process.poll() is None, self.said()
        try:
            with self.client() as client:
                return client.ask(wire.HELLO)
        except (OSError, wire.Dropped):
            return None

    def said(self):
        with open(self.words, errors="replace") as file:
            return file.read()

    def client(self, seconds=20):
        return wire.Client(self.path, seconds)

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def stop(self):
        """A clean stop; its exit status."""
        self.process.terminate()
        return self.process.wait(10)

    def open_files(self):
        """What its descriptors are."""
        place, found = f"/proc/{self.process.pid}/fd", []
        for name in os.listdir(place):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"{place}/{name}"))
        return found

    def descriptors(self):
        """How many; without each thread's of the lock file, opened at its first
        switch."""
        return sum(not name.startswith("/run/mptcpapi/") for name in self.open_files())

    def hands(self):
        return sum("/net/mptcp/" in name for name in self.open_files())

    def kill_at(self, call, point):
        """Have it killed when one of its threads is about to make this system
        call for the so-manieth time from now on."""
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(self.process.pid), "-e",
                                   f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={point}"])

        def traced():
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                with open(f"/proc/{self.process.pid}/task/{task}/status") as file:
                    if "TracerPid:\t0\n" in file.read():
                        return False
            return True
        until("strace is there", traced)
        return tracer

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def memory(self):
        """Kilobytes resident."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1])

    def processor(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def worked(self):
        """Milliseconds that its threads have been running, whatever else the
        machine was at."""
        total, place = 0, f"/proc/{self.process.pid}/task"
        for task in os.listdir(place):
            with contextlib.suppress(FileNotFoundError), open(f"{place}/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e6

    @contextlib.contextmanager
    def unchanged(self, seconds=30, megabytes=24):
        """What happens inside leaves no descriptor and no thread behind, and
        not much memory."""
        # Look, and one pair of hands for each of four threads.
        until("all threads", lambda: self.hands() >= 5)
        fds, threads, memory = self.descriptors(), self.threads(), self.memory()
        yield
        self.settle(seconds, fds, threads)
        grown = (self.memory() - memory) / 1024
        print(f"      memory {memory / 1024:.1f} MB, grown by {grown:.1f} MB", flush=True)
        assert grown < megabytes, f"{grown:.1f} MB more than before"

    def settle(self, seconds, fds, threads):
        # A thread too many goes when it has had something to do.
        with self.client() as client, wire.mptcp() as sock:
            fds += 1

            def settled():
                client.ask(wire.FACTS, sock)
                return self.descriptors() <= fds and self.threads() <= threads
            try:
                until("nothing is left", settled, seconds)
            except AssertionError:
                raise AssertionError(f"{fds} descriptors, {threads} threads before, now {self.threads()} threads and "
                                     f"{sorted(self.open_files())}") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.kill()
        elif kind is None:
            assert self.process.returncode in (0, -signal.SIGKILL), f"it ended by itself: {self.process.returncode}"
        if kind is not None:
            sys.stderr.write("".join(f"      broker: {line}\n" for line in self.said().splitlines()[-30:]))
        if self.kept:
            self.kept.cleanup()


# ---- users --------------------------------------------------------------------

def become(uid):
    if uid != os.getuid():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def dies_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


class Child:
    """A process of a user that runs a function; told to end by a pipe that
    becomes readable, given to the function as `ending`."""

    ends = set()  # not for those that are made later

    def __init__(self, uid, function, *args):
        result, write = os.pipe()
        ending, self.end = os.pipe()
        Child.ends.add(self.end)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(result)
                for end in Child.ends:
                    os.close(end)
                become(uid)
                dies_with_parent()
                value = function(*args, ending=ending) if "ending" in function.__code__.co_varnames else function(*args)
                with os.fdopen(write, "wb") as file:
                    pickle.dump(value, file)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(write)
        os.close(ending)
        self.output = result

    def ended(self):
        return bool(select.select([self.output], [], [], 0)[0])

    def result(self, seconds=60):
        """Tells it to end; what the function gave."""
        self.tell()
        return self.wait(seconds)

    def tell(self):
        if self.end is not None:
            Child.ends.remove(self.end)
            os.close(self.end)
            self.end = None

    def wait(self, seconds=60):
        """What the function gives when it ends by itself."""
        end = time.monotonic() + seconds
        data = b""
        while True:
            ready = select.select([self.output], [], [], max(0, end - time.monotonic()))[0]
            if not ready:
                self.kill()
                raise AssertionError(f"a client's process does not end within {seconds} s")
            some = os.read(self.output, 1 << 16)
            if not some:
                break
            data += some
        os.close(self.output)
        status = os.waitpid(self.pid, 0)[1]
        self.pid = None
        self.tell()
        assert status == 0 and data, f"a client's process has failed: {status}"
        return pickle.loads(data)

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None


def as_user(uid, function, *args, seconds=60):
    return Child(uid, function, *args).wait(seconds)


def told_to_end(ending, seconds=0):
    return bool(select.select([ending], [], [], seconds)[0])


# ---- the witness --------------------------------------------------------------

def waited(pid):
    """For each thread of a process the seconds that it wanted to run and was
    not given a processor."""
    found, place = {}, f"/proc/{pid}/task"
    for task in os.listdir(place):
        with contextlib.suppress(OSError), open(f"{place}/{task}/schedstat") as file:
            found[task] = int(file.read().split()[1]) / 1e9
    return found


class Stopwatch:
    """How long calls take, and how much of that neither side could help."""

    def __init__(self, pid):
        self.pids = pid, os.getpid()
        self.took, self.without = [], []

    def __call__(self, call, *args):
        before = [waited(pid) for pid in self.pids]
        began = time.perf_counter()
        value = call(*args)
        took = time.perf_counter() - began
        after = [waited(pid) for pid in self.pids]
        delay = sum(now - then.get(task, now) for then, both in zip(before, after) for task, now in both.items())
        self.took.append(took)
        self.without.append(max(0, took - delay))
        return value


def witness(path, pid, ending):
    """Asks and lists, again and again; how long each took."""
    hello, add = Stopwatch(pid), Stopwatch(pid)
    used = []
    with wire.Client(path) as client:
        # Enough for a figure that one bad moment does not make.
        while not told_to_end(ending, 0.001) or len(used) < 300:
            hello(client.ask, wire.HELLO)
            with wire.mptcp() as sock:
                add(client.ask, wire.add("10.1.0.1"), sock)
                used.append(wire.key_of(sock))
            if len(used) % 64 == 0:
                client.ask(wire.closed(used[-64:]))
        client.ask(wire.closed(used[-64:]))
    return {"hello": (hello.took, hello.without), "add": (add.took, add.without)}


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


@contextlib.contextmanager
def watched(broker, milliseconds=None):
    """Meanwhile another user is served in time. Unless told to be strict, what
    a machine that is busy with other things adds does not count."""
    if milliseconds is None:
        milliseconds = 20 if STRICT else 100
    child = Child(GOOD, witness, broker.path, broker.process.pid)
    began = time.monotonic()
    try:
        yield
        time.sleep(max(0, 1 - (time.monotonic() - began)))
        figures = child.result()
    finally:
        child.kill()
    for what, (took, without) in figures.items():
        half, most, every = (1000 * percentile(took, part) for part in (0.5, 0.99, 1))
        own = 1000 * percentile(without, 0.99)
        print(f"      {what:5} {len(took):5} times: {half:.2f} ms, 99 % within {most:.2f} ms ({own:.2f} without waiting "
              f"for a processor), all within {every:.2f} ms", flush=True)
        counts = most if STRICT else own
        assert counts < milliseconds, f"{what}: 99 % within {counts:.1f} ms, not {milliseconds}"


# ---- connections --------------------------------------------------------------

def connected(server=None, client=None, address=None):
    """Both ends of a connection."""
    listener = server or listening()
    sock = client or wire.mptcp()
    sock.connect(address or listener.getsockname())
    accepted = listener.accept()[0]
    if server is None:
        listener.close()
    return sock, accepted


def listening(address=SERVER, protocol=wire.MPTCP, backlog=1024, port=0):
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(backlog)
    return listener


def lingering(seconds=3, protocol=wire.MPTCP):
    """A connected socket with unsent data, whose last close blocks; and what
    must be kept open meanwhile."""
    listener = listening(protocol=protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    sock.connect(listener.getsockname())
    accepted = listener.accept()[0]
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(1 << 16))
    return sock, (listener, accepted)


def subflows(sock):
    """How many the kernel has (MPTCP_INFO)."""
    info = sock.getsockopt(284, 1, 96)
    return info[80] if len(info) > 80 else info[0] + 1


def locals_of(sock):
    return sorted(str(subflow.local.ip) for subflow in mptcpapi.subflows(sock))


def remotes_of(sock):
    return sorted(str(subflow.remote.ip) for subflow in mptcpapi.subflows(sock))
