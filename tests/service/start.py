# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where a broker starts, and where it must not."""

import ctypes
import errno
import fcntl
import os
import socket
import subprocess

import mptcpapi

import wire
from lab import DAEMON, EVIL, Broker, Child, as_user, connected, until
from life import alone, hold, trapped


def refused(*options, status=1, words=""):
    """It does not start, and says why."""
    done = subprocess.run([DAEMON, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, timeout=30)
    said = done.stderr.decode()
    assert done.returncode == status and words in said and said.startswith("mptcpapid: "), (done.returncode, said)


def one_broker_on_a_path():
    """A second one refuses and takes nothing from the first; a socket file that
    nobody answers is replaced, another file is not."""
    with Broker() as broker:
        for _ in range(3):
            refused("--socket", broker.path, words="in use")
            assert broker.answers()
        broker.kill()
        assert os.path.exists(broker.path)
        broker.start()
        broker.stop()
        # Many at once: one serves.
        crowd = [subprocess.Popen([DAEMON, "--socket", broker.path], stderr=subprocess.DEVNULL) for _ in range(6)]
        broker.process = crowd[0]
        try:
            ended = 0
            while ended < 5:
                pid, _ = os.waitpid(-1, 0)
                ended += 1
                crowd = [one for one in crowd if one.pid != pid]
            broker.process = crowd[0]
            assert broker.answers()
        finally:
            for one in crowd:
                one.kill()
                one.wait()
        path = os.path.join(broker.directory, "precious")
        with open(path, "w") as file:
            file.write("x")
        refused("--socket", path, words=path)
        with open(path) as file:
            assert file.read() == "x"


def one_broker_for_a_journal():
    """Another is refused, and says what to do; the journal goes with its broker,
    however that ends, and is the same after it was written afresh."""
    with Broker() as broker:
        place = broker.directory
        second = os.path.join(place, "second")
        for _ in range(3):
            refused("--socket", second, words="--state")
            assert not os.path.exists(second) and broker.answers()
        refused("--socket", os.path.join(os.path.dirname(place), "elsewhere"), "--state", place, words="another broker's")
        os.mkdir(os.path.join(place, "state"))
        with Broker(options=["--state", os.path.join(place, "state")], directory=place, name="third") as third:
            assert third.answers() and broker.answers()
        broker.kill()
        broker.start()
        refused("--socket", second, words="--state")
        assert broker.stop() == 0
        with Broker(directory=place, name="fourth"):
            refused("--socket", broker.path, words="--state")
        broker.start()


def a_journal_of_the_undead():
    """One that was killed while a socket keeps a thread of it, whose descriptors
    stay open, keeps nobody from starting."""
    def user(path, trap, ready):
        sock = connected()[0]
        held = hold(trap, [sock], 8)
        with wire.Client(path) as client:
            client.send(wire.request(1, wire.add("10.2.0.1")), [sock.fileno()])
            os.write(ready, b".")
            for each in held:
                each.join()

    def with_trap(path, ready):
        trapped(lambda path, trap: user(path, trap, ready))(path)

    lock = alone()
    with Broker() as broker:
        read, write = os.pipe()
        child = Child(0, with_trap, broker.path, write)
        os.read(read, 1)
        until("a thread is kept", lambda: "holds a thread up" in broker.said())
        broker.process.kill()
        until("it is dead", lambda: read_state(broker.process.pid) == "Z")
        with open(os.path.join(broker.directory, "journal"), "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                raise AssertionError("and all of it")
            except BlockingIOError:
                pass
        with Broker(directory=broker.directory, name="second") as second:
            assert second.answers() and read_state(broker.process.pid) == "Z"
        child.wait()
        broker.process.wait(10)
    os.close(lock)


def read_state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(") ", 1)[1][0]


def two_in_one_namespace():
    """Each serves its own programs, and it is told."""
    with Broker() as first, Broker() as second:
        assert first.answers() and second.answers()
        assert "another broker" not in first.said() and "another broker" in second.said()
    with Broker() as alone:
        assert "another broker" not in alone.said()


def what_it_can_t_do_it_says():
    """Options, policies and places that are wrong; a user without privilege."""
    with Broker() as broker:
        other = os.path.join(broker.directory, "other")
        refused("--sockte", "x", status=2, words="--sockte")
        refused("--config", "/nowhere", status=2, words="/nowhere")
        with open(other, "w") as file:
            file.write("[default]\nclient = 3\n")
        refused("--config", other, status=2, words="client")
        refused("--check-config", "--config", other, status=2, words="client")
        assert subprocess.run([DAEMON, "--check-config", "--config", broker.config]).returncode == 0
        refused("--socket", os.path.join(broker.directory, "new"), "--state", "/nowhere/at/all", words="/nowhere")
        refused("--socket", "@" + "x" * 200, words="listening on")
        name = f"@mptcpapi-start-{os.getpid()}"

        def user():
            refused("--socket", name, words="CAP_NET_ADMIN")
        os.chmod(broker.directory, 0o755)
        as_user(EVIL, user)


def another_namespace():
    """A broker of another network namespace refuses in words; who may do
    without it does."""
    def elsewhere(path, uid, inherited, ending=None):
        if ctypes.CDLL(None).unshare(0x40000000) != 0:
            raise OSError("unshare")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "addr", "add", "10.1.0.1/32", "dev", "lo"], check=True)
        os.environ["MPTCPAPI_BROKER"] = path
        if uid:
            os.setresuid(uid, uid, uid)
        with wire.Client(path) as client, wire.mptcp() as sock:
            client.ask(wire.HELLO)
            try:
                client.ask(wire.add("10.1.0.1"), sock)
                raise AssertionError("served")
            except wire.Refused as error:
                assert error.errno == errno.EOPNOTSUPP and "another network namespace" in error.strerror, error
        with mptcpapi.mptcp_socket() as sock:
            for backend in ("broker", "auto"):
                os.environ["MPTCPAPI_BACKEND"] = backend
                try:
                    mptcpapi.add(sock, "10.1.0.1")
                    told = 0
                except OSError as error:
                    told = error.errno
                    assert "another network namespace" in error.strerror, error
                caps = mptcpapi.capabilities()
                if backend == "broker":
                    assert told == errno.EOPNOTSUPP and caps.backend == mptcpapi.Backend.NONE, (told, caps)
                elif uid:
                    assert told and caps.backend == mptcpapi.Backend.NONE, (told, caps)
                else:
                    assert told == 0 and caps.backend == mptcpapi.Backend.DIRECT, (told, caps)
        # A socket of the broker's namespace that was inherited.
        with wire.Client(path) as client:
            client.ask(wire.add("10.1.0.1"), inherited)

    with Broker() as broker, wire.mptcp() as inherited:
        for uid in (EVIL, 0):
            as_user(0, elsewhere, broker.path, uid, inherited)


CASES = [one_broker_on_a_path, one_broker_for_a_journal, a_journal_of_the_undead, two_in_one_namespace, what_it_can_t_do_it_says, another_namespace]
