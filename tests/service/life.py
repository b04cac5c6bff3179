# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the broker keeps for somebody ends with what it is kept for: neither
later nor sooner."""

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import wire
from hostile import Trap
from lab import DAEMON, EVIL, GOOD, PATHS, SERVER, Broker, Child, as_user, choose, connected, listening, locals_of, \
    path_manager, remotes_of, subflows, told_to_end, until

F_OFD_SETLK = 37
LOOK = 0.02  # longer than the broker takes endpoints to be what they were
SWEEP = 6  # longer than the broker waits between two looks


def nested():
    """Children of a child don't have the ends that their grandparent has."""
    Child.ends.clear()


def alone():
    """Locks are held by one test at a time on this machine."""
    file = os.open("/", os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def hold(trap, socks, seconds):
    """Holds the locks of these sockets from now on."""
    timer = threading.Timer(seconds, trap.release)
    threads = [threading.Thread(target=sock.send, args=(memoryview(trap.memory)[:1000],)) for sock in socks]
    for thread in threads + [timer]:
        thread.start()
    trap.has(len(threads))
    return threads + [timer]


def trapped(function):
    """As the user EVIL, with a trap, which takes root to make."""
    def user(path):
        trap = Trap()
        os.setresuid(EVIL, EVIL, EVIL)
        signal.alarm(20)
        return function(path, trap)
    return user


def most_threads(broker, function):
    """How many threads it has at most while somebody does this."""
    most, child = 0, Child(0, function, broker.path)
    while not child.ended():
        most = max(most, broker.threads())
        time.sleep(0.01)
    child.wait()
    print(f"      {most} threads at most")
    return most


def room(path, count):
    """Whether so many sockets, and no more, are free for this user."""
    with wire.Client(path) as client:
        socks = [wire.mptcp() for _ in range(count + 1)]
        told = [client.errno(wire.add("10.1.0.1"), sock) for sock in socks]
        for sock in socks:
            client.ask(wire.FORGET, sock)
        return told == [0] * count + [errno.EDQUOT]


def stopped_while_held():
    """Whoever holds whatever lock, it stops when it is told to."""
    def user(path, trap, ready):
        socks = [connected()[0] for _ in range(2)]
        held = hold(trap, socks, 6)
        clients = [wire.Client(path) for _ in socks]
        for client, sock in zip(clients, socks):
            client.send(wire.request(1, wire.add("10.2.0.1")), [sock.fileno()])
        os.write(ready, b".")
        for each in held:
            each.join()

    def users(path, ready):
        def run(uid):
            trap = Trap()
            os.setresuid(uid, uid, uid)
            signal.alarm(20)
            user(path, trap, ready)
        return [Child(0, run, EVIL + at) for at in range(4)]

    lock = alone()
    before = path_manager()
    with Broker("manage = true\n") as broker:
        assert path_manager() != before
        read, write = os.pipe()
        children = users(broker.path, write)
        for _ in children:
            os.read(read, 1)
        time.sleep(0.3)
        broker.process.terminate()
        try:
            until("it is as before", lambda: path_manager() == before, 3)
        finally:
            for child in children:
                child.wait()
        assert broker.process.wait(10) == 0
    os.close(lock)


def watchers_of_held_sockets():
    """Looks at connections that nobody manages are done for who asked for
    them: they take no more threads than the rest."""
    def user(path, trap):
        server, lines, kept = listening(), [], []
        for _ in range(40):
            kept.append(connected(server))
            lines.append(wire.Client(path))
            lines[-1].ask(wire.number(11) + wire.number(0xff), kept[-1][0])
        for each in hold(trap, [sock for sock, _ in kept], 3):
            each.join()

    lock = alone()
    with Broker() as broker:
        most = most_threads(broker, trapped(user))
    os.close(lock)
    assert most < 12, most


def unclaimed_connections_that_are_held():
    """So are commands to connections that nobody asked anything for."""
    def user(path, trap):
        server = listening(backlog=100)
        kept = [connected(server) for _ in range(40)]
        held = hold(trap, [sock for sock, _ in kept], 3)
        # Fully established by this: now its further subflows are due.
        for _, accepted in kept:
            accepted.send(b"x")
        for each in held:
            each.join()

    subprocess.run(["ip", "mptcp", "endpoint", "add", "10.2.0.1", "subflow"], check=True)
    lock = alone()
    with Broker("manage = true\n") as broker:
        most = most_threads(broker, trapped(user))
    os.close(lock)
    assert most < 12, most


def caught_in_a_switch():
    """A connection that begins in somebody's switch gets what the kernel would
    give it, by endpoints that are newer than the broker's last look too."""
    def caught(act):
        before = path_manager()
        choose("1" if before.isdigit() else "userspace")
        try:
            return act()
        finally:
            choose(before)

    with Broker():
        subprocess.run(["ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"], check=True)
        subprocess.run(["ip", "mptcp", "endpoint", "add", "10.2.0.1", "subflow"], check=True)
        time.sleep(LOOK)
        server = listening("0.0.0.0")
        address = (SERVER, server.getsockname()[1])
        client, accepted = connected(server, caught(wire.mptcp), address)
        accepted.send(b"x")
        until("the client's subflow", lambda: locals_of(client) == ["10.2.0.1", SERVER])
        subprocess.run(["ip", "mptcp", "endpoint", "flush"], check=True)
        subprocess.run(["ip", "mptcp", "endpoint", "add", "10.3.0.1", "signal"], check=True)
        time.sleep(LOOK)
        client = wire.mptcp()
        caught(lambda: client.connect(address))
        accepted = server.accept()[0]
        accepted.send(b"x")
        until("the server's address", lambda: ["10.3.0.1"] == [to for to in remotes_of(client) if to != SERVER])


def expired_calls():
    """A call that took too long leaves nothing in the user's quota, whether its
    program stays or goes."""
    def user(path, trap, stays):
        with wire.Client(path) as client:
            sock, _ = connected()
            held = hold(trap, [sock], 2)
            told = client.errno(wire.TAKE, sock)
            for each in held:
                each.join()
            sock.close()
            time.sleep(SWEEP)
            return told == errno.EIO and (not stays or room(path, 1))

    lock = alone()
    with Broker("grace = 0\n[default]\nsockets = 1\n") as broker:
        for stays in (True, False):
            assert as_user(0, trapped(lambda path, trap: user(path, trap, stays)), broker.path)
            until("its place", lambda: as_user(EVIL, room, broker.path, 1), 2 * SWEEP)
    os.close(lock)


def asked_at_the_same_time():
    """A question that comes before a list is made doesn't take its owner."""
    def user(path):
        asking, adding = wire.Client(path), wire.Client(path)
        socks = []
        for _ in range(300):
            sock = wire.mptcp()
            asking.send(wire.request(1, wire.FACTS), [sock.fileno()])
            adding.send(wire.request(1, wire.add("10.1.0.1")), [sock.fileno()])
            asking.receive()
            socks.append((sock, adding.receive()[1]))
        done = sum(told == "done" or isinstance(told, list) for _, told in socks)
        # Forgotten while it is made.
        more = 0
        for _ in range(300):
            sock = wire.mptcp()
            adding.send(wire.request(1, wire.add("10.1.0.1")), [sock.fileno()])
            asking.send(wire.request(1, wire.FORGET), [sock.fileno()])
            asking.receive()
            told = adding.receive()[1]
            more += not isinstance(told, wire.Refused) and asking.ask(wire.FACTS, sock)["list"] is not None
            socks.append((sock, told))
        return done, more
    with Broker("[default]\nsockets = 10\n") as broker:
        done = as_user(EVIL, user, broker.path)
        assert done[0] <= 10 and done[1] <= 10, done


def taken_and_disconnected():
    """Connecting failed: what was only taken ends with its program all the same."""
    def user(path):
        with wire.Client(path) as client:
            sock = wire.mptcp()
            client.ask(wire.TAKE, sock)
            client.ask(wire.DISCONNECTED, sock)
            sock.close()
            time.sleep(SWEEP)
    with Broker("grace = 0\n[default]\nsockets = 1\n") as broker:
        as_user(EVIL, user, broker.path)
        until("its place", lambda: as_user(EVIL, room, broker.path, 1), 2 * SWEEP)


def a_server_list_that_fails():
    """The namespace isn't put in userspace mode for it, or not for long."""
    def user(path):
        with wire.Client(path) as client, listening() as server:
            return client.errno(wire.add("10.1.0.1"), server)

    before = path_manager()
    with Broker("grace = 0\n[default]\nservers = true\n") as broker:
        with broker.client() as client, listening() as server:
            for ask in (wire.add("192.0.2.1"), wire.remove("192.0.2.1")):
                assert client.errno(ask, server) == errno.EADDRNOTAVAIL
                assert path_manager() == before
        # Another holds the switch until nobody waits for the call any more.
        with open("/run/mptcpapi/latch", "r+b") as file:
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            child = Child(EVIL, user, broker.path)
            time.sleep(1.5)
        assert child.wait() == errno.EIO
        until("it is as before", lambda: path_manager() == before, 2 * SWEEP)


def another_has_the_switch():
    """Who has to wait for it hears so, and so does the administrator: it's no
    user's doing. Who needs no switch is served meanwhile."""
    def user(path, ending):
        nested()
        refusals = []

        def wait():
            with wire.Client(path) as client, wire.mptcp() as sock:
                try:
                    client.ask(wire.add("10.1.0.1"), sock)
                except wire.Refused as refused:
                    refusals.append((refused.errno, refused.strerror))
        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return refusals

    with Broker() as broker, broker.client() as client, wire.mptcp() as switched:
        client.ask(wire.add("10.1.0.1"), switched)
        with open("/run/mptcpapi/latch", "r+b") as file:
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            child = Child(EVIL, user, broker.path)
            until("it is logged", lambda: "another process holds the lock" in broker.said())
            assert client.ask(wire.FACTS, switched)["list"]
            with wire.Client(broker.path) as other:
                other.ask(wire.HELLO)
            refusals = child.wait()
        assert len(refusals) == 4, refusals
        for number, words in refusals:
            assert number == errno.EIO and "another process holds the lock" in words, refusals
        assert broker.said().count("another process") == 1 and "holds a thread up" not in broker.said(), broker.said()
        with wire.mptcp() as sock:
            client.ask(wire.add("10.1.0.1"), sock)


def descriptors_of_calls_given_up():
    """They stay open until a thread comes to them, and count until then: whose
    they are asks no more when they are too many."""
    clients, each = 100, 9

    def user(path, lock, ready, ending):
        lock.close()  # it is the parent's alone
        lines = [wire.Client(path) for _ in range(clients)]
        for turn in range(each):
            for line in lines:
                with wire.mptcp() as sock:
                    line.send(wire.request(turn + 1, wire.add("10.1.0.1")), [sock.fileno()])
        os.write(ready, b".")
        told_to_end(ending, 60)
        return [[line.receive()[1] for line in lines] for _ in range(each)]

    with Broker() as broker, broker.unchanged():
        before = broker.descriptors()
        with open("/run/mptcpapi/latch", "r+b") as file:
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            read, write = os.pipe()
            child = Child(EVIL, user, broker.path, file, write)
            os.read(read, 1)
            most, end = 0, time.monotonic() + 8
            while time.monotonic() < end:
                most = max(most, broker.descriptors() - before)
                time.sleep(0.05)
        print(f"      {most} descriptors at most")
        # Clients, those that may wait to be closed, those of calls under way.
        assert most <= clients + 256 + clients + 8, most
        for told in child.result():
            assert len(told) == clients and all(one == "done" or isinstance(one, (list, wire.Refused)) for one in told)


def sockets_that_are_gone_before_their_client():
    """Of those nothing is kept for as long as their program is there."""
    def user(path, ready, ending):
        server = listening()
        for _ in range(10):
            with wire.Client(path) as client:
                for _ in range(8):
                    sock = wire.mptcp()
                    client.ask(wire.add("10.1.0.1", "10.2.0.1"), sock)
                    sock.bind(("10.1.0.1", 0))
                    accepted = connected(server, sock)[1]
                    sock.send(b"x")
                    until("two paths", lambda: subflows(sock) == 2)
                    sock.close()
                    accepted.close()
                until("all are gone", lambda: room(path, 8))
        os.write(ready, b".")
        told_to_end(ending, 30)
        return True

    with Broker("grace = 0\n[default]\nsockets = 8\n") as broker:
        read, write = os.pipe()
        child = Child(EVIL, user, broker.path, write)
        os.read(read, 1)
        time.sleep(SWEEP)
        # Of whom it keeps something it asks whether he is alive.
        asked, pid = os.path.join(broker.directory, "asked"), child.pid
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", asked, "-e", "trace=kill", "-p",
                                   str(broker.process.pid)])
        time.sleep(SWEEP)
        tracer.terminate()
        tracer.wait(10)
        assert child.result()
        with open(asked) as file:
            lines = [line for line in file if f"kill({pid}," in line]
        assert not lines, f"{len(lines)} are kept: {lines[:3]}"


def connections_that_nobody_heard():
    """Those that end before their begin is read, and sockets that never connect,
    make room when they are closed, whether anybody says so or not; all but a
    quarter, which is for those who have few."""
    def free(path):
        with wire.Client(path) as client:
            socks = [wire.mptcp() for _ in range(75)]
            told = [client.errno(wire.add("10.1.0.1"), sock) for sock in socks]
            for sock in socks:
                client.ask(wire.FORGET, sock)
            return not any(told)

    def user(path):
        server = listening()
        with wire.Client(path) as client:
            for _ in range(6):
                socks = [wire.mptcp() for _ in range(40)]
                for at, sock in enumerate(socks):
                    client.ask(wire.add("10.1.0.1"), sock)
                    if at % 2:
                        connected(server, sock)[1].close()
                    sock.close()
                until("there is room", lambda: free(path))
        return True

    with Broker("[default]\nsockets = 100\nrequests = 1000000\n") as broker, broker.unchanged():
        as_user(EVIL, user, broker.path, seconds=120)


def two_programs_one_socket():
    """It has its list as long as one of them is there."""
    def helper(path, sock):
        with wire.Client(path) as client:
            client.ask(wire.add("10.2.0.1"), sock)

    def user(path):
        nested()
        with wire.Client(path) as client, wire.mptcp() as sock:
            client.ask(wire.add("10.1.0.1"), sock)
            as_user(EVIL, helper, path, sock)
            time.sleep(SWEEP + 1)
            return client.ask(wire.FACTS, sock)["list"]
    with Broker("grace = 0\n") as broker:
        told = as_user(EVIL, user, broker.path)
        assert told and len(told) == 2, told


def closed_here_open_there():
    """One of two programs has closed it."""
    def other(path, sock, ready, ending):
        with wire.Client(path) as client:
            client.ask(wire.add("10.2.0.1"), sock)
            os.write(ready, b".")
            told_to_end(ending, 10)
            return client.ask(wire.FACTS, sock)["list"]

    def user(path):
        nested()
        read, write = os.pipe()
        with wire.Client(path) as client, wire.mptcp() as sock:
            client.ask(wire.add("10.1.0.1"), sock)
            child = Child(EVIL, other, path, sock, write)
            os.read(read, 1)
            key = wire.key_of(sock)
            sock.close()
            client.ask(wire.closed([key]))
            return child.result()
    with Broker("grace = 0\n") as broker:
        told = as_user(EVIL, user, broker.path)
        assert told and len(told) == 2, told


def a_server_that_goes_to_the_background():
    """Its list stays while it listens."""
    def user(path):
        nested()
        server = listening()
        def parent(path, server):
            with wire.Client(path) as client:
                client.ask(wire.add(*PATHS), server)
        Child(EVIL, parent, path, server).wait()
        time.sleep(SWEEP + 1)
        with wire.Client(path) as client:
            return client.ask(wire.FACTS, server)["list"]
    with Broker(f"grace = 0\n[default]\nservers = true\n") as broker:
        told = as_user(EVIL, user, broker.path)
        assert told and len(told) == 3, told


def allowed_no_more():
    """`allow = false` on SIGHUP counts for what is asked from then on."""
    def user(path, ready, ending):
        with wire.Client(path) as client, wire.mptcp() as sock:
            client.ask(wire.add("10.1.0.1"), sock)
            os.write(ready, b".")
            told_to_end(ending, 10)
            return client.errno(wire.add("10.2.0.1"), sock)
    with Broker() as broker:
        read, write = os.pipe()
        child = Child(EVIL, user, broker.path, write)
        os.read(read, 1)
        with open(broker.config, "w") as file:
            file.write("[default]\nallow = false\n")
        broker.process.send_signal(signal.SIGHUP)
        until("the policy is read again", lambda: "read again" in broker.said())
        told = child.result()
        assert told == errno.EACCES, told


def one_user_takes_all():
    """However few descriptors there are, one user leaves some to others."""
    def many(path, ready, ending):
        clients = []
        with contextlib.suppress(OSError, wire.Dropped):
            while len(clients) < 900:
                clients.append(wire.Client(path, 1))
                clients[-1].ask(wire.HELLO)
        os.write(ready, b".")
        told_to_end(ending, 20)
        return len(clients)

    def other(path):
        with wire.Client(path, 3) as client:
            return client.ask(wire.HELLO)

    with Broker(limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))) as broker:
        read, write = os.pipe()
        child = Child(EVIL, many, broker.path, write)
        os.read(read, 1)
        as_user(GOOD, other, broker.path)
        print("     ", child.result(), "connections")


def one_user_asks_for_all():
    """Nor with what it asks: others are heard."""
    def many(path, lock, ready, ending):
        lock.close()  # it is the parent's alone
        lines = [wire.Client(path) for _ in range(300)]
        for turn in range(3):
            for line in lines:
                with wire.mptcp() as sock:
                    line.send(wire.request(turn + 1, wire.add("10.1.0.1")), [sock.fileno()])
        os.write(ready, b".")
        told_to_end(ending, 30)

    def other(path):
        took = 0
        for _ in range(50):
            began = time.monotonic()
            with wire.Client(path) as client, wire.mptcp() as sock:
                client.ask(wire.FACTS, sock)
            took = max(took, time.monotonic() - began)
            time.sleep(0.02)
        return took

    with Broker(limits=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))) as broker:
        with open("/run/mptcpapi/latch", "r+b") as file:
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            read, write = os.pipe()
            child = Child(EVIL, many, broker.path, file, write)
            os.read(read, 1)
            took = as_user(GOOD, other, broker.path)
        child.result()
        print(f"      another's question took {1000 * took:.0f} ms at most")
        assert took < 0.5, took


def policy_that_can_t_be_read():
    """One that is there and can't be reached is not taken for none."""
    def check():
        return subprocess.run([DAEMON, "--check-config"], capture_output=True)

    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc"], check=True)
    assert as_user(EVIL, check).returncode == 0
    os.mkdir("/etc/mptcpapi", 0o700)
    done = as_user(EVIL, check)
    assert done.returncode == 2 and b"mptcpapid.conf: Permission denied" in done.stderr, done


def handed_what_is_of_no_use():
    """A descriptor that programs can't connect to by this protocol is refused."""
    code = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_PID=str(os.getpid()), "
            "LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])")
    for kind, listens in ((socket.SOCK_STREAM, True), (socket.SOCK_SEQPACKET, False)):
        with socket.socket(socket.AF_UNIX, kind) as sock:
            sock.bind(f"/run/given.{kind.name}")
            if listens:
                sock.listen()
            process = subprocess.Popen([sys.executable, "-c", code, str(sock.fileno()), DAEMON, "--state", "/run"],
                                       stderr=subprocess.PIPE, pass_fds=[sock.fileno()])
            try:
                assert process.wait(5) == 1
                assert b"that was passed" in process.stderr.read()
            finally:
                process.kill()


def full_disk():
    """A journal that could not be written for a while is whole afterwards."""
    os.makedirs("/run/small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/run/small"], check=True)
    with Broker(options=["--state", "/run/small"]) as broker:
        socks = [wire.mptcp() for _ in range(101)]
        with broker.client() as client:
            with open("/run/small/fill", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            for sock in socks[:-1]:
                client.ask(wire.add("10.1.0.1"), sock)
            os.unlink("/run/small/fill")
            client.ask(wire.add("10.1.0.1"), socks[-1])
        broker.kill()
        broker.start()
        with broker.client() as client:
            for sock in socks:
                assert client.ask(wire.FACTS, sock)["list"]


CASES = [stopped_while_held, watchers_of_held_sockets, unclaimed_connections_that_are_held, caught_in_a_switch,
         expired_calls, asked_at_the_same_time, taken_and_disconnected, a_server_list_that_fails, another_has_the_switch,
         descriptors_of_calls_given_up, sockets_that_are_gone_before_their_client, connections_that_nobody_heard,
         two_programs_one_socket, closed_here_open_there, a_server_that_goes_to_the_background, allowed_no_more,
         one_user_takes_all, one_user_asks_for_all, policy_that_can_t_be_read, handed_what_is_of_no_use, full_disk]
