# SPDX-License-Identifier: MIT OR Apache-2.0
"""The broker is killed, at any moment, and started again: no connection and no
byte is lost, and what it knew it knows."""

import errno
import os
import random
import select
import selectors
import socket
import struct
import subprocess
import tempfile
import time
import zlib

import mptcpapi

import wire
from lab import EVIL, GOOD, MUCH, PATHS, SERVER, Broker, Child, as_user, connected, listening, locals_of, path_manager, \
    remotes_of, subflows, told_to_end, until


def listed(sock):
    return sorted(str(address.ip) for address in mptcpapi.local_addresses(sock))


class Repeats:
    """Calls that are made again where the broker is away: how often."""

    def __init__(self):
        self.count = 0
        self.never = True

    def __call__(self, call, *args):
        end = time.monotonic() + 30
        again = False
        while True:
            try:
                value = call(*args)
                self.never = False
                return value
            except OSError as error:
                if again and call is mptcpapi.remove and error.errno == errno.EADDRNOTAVAIL:
                    return None  # the first time it was done and nobody was left to tell
                # One that has never answered is none, for a while.
                away = errno.EPERM if self.never else errno.EIO
                if error.errno != away or "broker" not in error.strerror or time.monotonic() > end:
                    raise
            again = True
            self.count += 1
            time.sleep(0.005)


def receive_all(server, count, ending):
    """Takes what so many connections send, and answers each with what it got."""
    poll = selectors.DefaultSelector()
    server.setblocking(False)
    poll.register(server, selectors.EVENT_READ)
    sums = {}
    total = ended = 0
    while ended < count:
        for key, _ in poll.select(0.5):
            if key.fileobj is server:
                sock = server.accept()[0]
                sock.setblocking(False)
                sums[sock] = 0, 0
                poll.register(sock, selectors.EVENT_READ)
                continue
            sock = key.fileobj
            size, crc = sums[sock]
            data = sock.recv(1 << 16)
            if data:
                sums[sock] = size + len(data), zlib.crc32(data, crc)
                total += len(data)
                continue
            poll.unregister(sock)
            sock.setblocking(True)
            sock.sendall(struct.pack("QI", size, crc))
            sock.close()
            ended += 1
    return total


class Flow:
    """A connection that sends, and what its list must be."""

    def __init__(self, repeat, server):
        self.repeat = repeat
        self.sock = mptcpapi.mptcp_socket()
        self.list = {"10.1.0.1", "10.2.0.1"}
        repeat(mptcpapi.add, self.sock, sorted(self.list))
        repeat(mptcpapi.connect, self.sock, [server])
        self.size = self.crc = 0

    def send(self, data):
        try:
            count = self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        self.size, self.crc = self.size + count, zlib.crc32(data[:count], self.crc)

    def change(self, address):
        if address in self.list:
            self.repeat(mptcpapi.remove, self.sock, address)
            self.list.remove(address)
        else:
            self.repeat(mptcpapi.add, self.sock, address)
            self.list.add(address)

    def end(self):
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.settimeout(60)
        got = self.sock.recv(12, socket.MSG_WAITALL)
        assert got == struct.pack("QI", self.size, self.crc), "bytes were lost"
        self.sock.close()


def transfers(path, server, count, seed, ready, ending):
    """Sends on many connections, and changes their lists all the time."""
    os.environ["MPTCPAPI_BROKER"] = path
    dice = random.Random(seed)
    repeat = Repeats()
    flows = [Flow(repeat, server) for _ in range(count)]
    data = [dice.randbytes(2048) for _ in range(16)]
    for flow in flows:
        flow.send(data[0])
    os.write(ready, b"x")
    changes = 0
    waiting = []  # not connected yet
    while not told_to_end(ending):
        for flow in dice.sample(flows, min(count, 40)):
            flow.send(dice.choice(data))
        dice.choice(flows).change(dice.choice(PATHS[1:]))
        changes += 1
        if len(waiting) < 30:
            waiting.append(mptcpapi.mptcp_socket())
            repeat(mptcpapi.add, waiting[-1], ["10.1.0.1", "10.3.0.1"])
    repeats = repeat.count
    # Now it is there, and knows all of them.
    for flow in flows:
        assert listed(flow.sock) == sorted(flow.list), (listed(flow.sock), flow.list)
    for flow in flows:
        until(f"the subflows are those of the list: {sorted(flow.list)}, not {locals_of(flow.sock)}",
              lambda: locals_of(flow.sock) == sorted(flow.list))
    for flow in flows[:50]:
        for address in PATHS[1:]:
            flow.change(address)
        flow.send(data[0])
    for flow in flows[:50]:
        assert listed(flow.sock) == sorted(flow.list)
        until(f"the subflows are those of the list again: {sorted(flow.list)}, not {locals_of(flow.sock)}",
              lambda: locals_of(flow.sock) == sorted(flow.list))
    for sock in waiting:
        assert listed(sock) == ["10.1.0.1", "10.3.0.1"]
    for flow in flows:
        flow.end()
    return changes, repeats, sum(flow.size for flow in flows)


def switches(path, ending):
    """Sockets that are put under control all the time."""
    count = 0
    client = None
    while not told_to_end(ending):
        try:
            client = client or wire.Client(path)
            with wire.mptcp() as sock:
                client.ask(wire.TAKE, sock)
            count += 1
        except (OSError, wire.Dropped):
            client = None
    return count


def killed_in_mid_transfer():
    """At random moments, switches under way, and started again at once."""
    count, seconds = (1000, 20) if MUCH else (200, 5)
    seed = int(os.environ.get("BROKER_SEED", time.time()))
    print(f"      BROKER_SEED={seed}", flush=True)
    dice = random.Random(seed)
    before = path_manager()
    with Broker() as broker, listening() as server:
        receiver = Child(0, receive_all, server, count)
        heard, ready = os.pipe()
        sender = Child(GOOD, transfers, broker.path, server.getsockname(), count, seed, ready)
        switcher = Child(EVIL, switches, broker.path)
        kills, end = 0, None
        while (end is None or time.monotonic() < end) and not sender.ended():
            time.sleep(dice.choice([0.01, 0.05, 0.1, 0.3]) * dice.random() * 2)
            broker.kill()
            # Killed also while it takes up what it knew; but it gets on.
            broker.start(wait=kills % 4 == 0)
            kills += 1
            if end is None and select.select([heard], [], [], 0)[0]:
                end = time.monotonic() + seconds
        until("the broker answers", broker.answers)
        switched = switcher.result()
        until("the path manager is as before", lambda: path_manager() == before)
        changes, repeats, sent = sender.result(120)
        assert receiver.wait() == sent
        print(f"      killed {kills} times: {changes} changes, {repeats} calls repeated, {switched} switches, "
              f"{sent >> 20} MB on {count} connections")
        assert path_manager() == before
        assert changes and kills > 5 and sent > count * 2048


def what_happened_meanwhile():
    """While it was away connections ended, sockets were closed, a subflow was
    lost: it finds out."""
    def user(path, ready, go):
        os.environ["MPTCPAPI_BROKER"] = path
        server = listening()

        def made():
            sock = mptcpapi.mptcp_socket()
            mptcpapi.add(sock, ["10.1.0.1", "10.2.0.1"])
            return sock
        pairs = []
        for _ in range(20):
            sock = made()
            mptcpapi.connect(sock, [server.getsockname()])
            accepted = server.accept()[0]
            sock.send(b"x")
            accepted.recv(1)
            accepted.send(b"y")
            sock.recv(1)
            pairs.append((sock, accepted))
        waiting = [made() for _ in range(20)]
        for sock, _ in pairs:
            until("two paths", lambda: len(locals_of(sock)) == 2)
        os.write(ready, b"x")
        os.read(go, 1)
        for sock, accepted in pairs[10:]:
            sock.close()
            accepted.close()
        # One loses a subflow, one gets data, one is connected meanwhile.
        lost, accepted = pairs[0]
        port = next(s.local.port for s in mptcpapi.subflows(lost) if str(s.local.ip) == "10.2.0.1")
        os.write(ready, struct.pack("H", port))
        os.read(go, 1)
        early = waiting[0]
        early.bind(("10.1.0.1", 0))
        early.connect(server.getsockname())
        end = server.accept()[0]
        for sock in waiting[10:]:
            sock.close()
        os.write(ready, b"x")
        os.read(go, 1)
        # It is back.
        until("the lost path is back", lambda: locals_of(lost) == ["10.1.0.1", "10.2.0.1"])
        end.send(b"x")
        early.recv(1)
        early.send(b"x")
        end.recv(1)
        until("the second path of one connected meanwhile", lambda: locals_of(early) == ["10.1.0.1", "10.2.0.1"])
        late = waiting[1]
        mptcpapi.connect(late, [server.getsockname()])
        last = server.accept()[0]
        late.send(b"x")
        last.recv(1)
        until("the second path of one connected later", lambda: locals_of(late) == ["10.1.0.1", "10.2.0.1"])
        # A REMOVE closes what it names, at both ends, and nothing else.
        for sock, accepted in [*pairs[:10], (early, end), (late, last)]:
            mptcpapi.add(sock, "10.3.0.1")
            until("three paths", lambda: locals_of(sock) == PATHS and remotes_of(accepted) == PATHS)
            mptcpapi.remove(sock, "10.2.0.1")
            until("two are left", lambda: locals_of(sock) == ["10.1.0.1", "10.3.0.1"] == remotes_of(accepted))
            accepted.send(b"z")
            assert sock.recv(1) == b"z"
        return True

    def free(path, count):
        with wire.Client(path) as client:
            sockets = []
            try:
                for _ in range(count):
                    sockets.append(wire.mptcp())
                    client.ask(wire.TAKE, sockets[-1])
                return True
            except wire.Refused:
                return False
            finally:
                client.ask(wire.closed([wire.key_of(sock) for sock in sockets]))

    with Broker(f"grace = 0\n[default]\nsockets = 50\n") as broker:
        heard, ready = os.pipe()
        wait, go = os.pipe()
        child = Child(GOOD, user, broker.path, ready, wait)
        assert os.read(heard, 1), "the user has failed"
        broker.kill()
        os.write(go, b"x")
        port = struct.unpack("H", os.read(heard, 2))[0]
        subprocess.run(["ss", "-tK", "sport", "=", f":{port}", "and", "src", "10.2.0.1"], check=True,
                       stdout=subprocess.DEVNULL)
        os.write(go, b"x")
        os.read(heard, 1)
        broker.start()
        os.write(go, b"x")
        child.wait()
        # All that were the program's are given back, whenever they ended.
        until("all places are free", lambda: as_user(GOOD, free, broker.path, 50))


def what_was_set():
    """Settings, and what was done by hand, hold for the next one too."""
    def user(path, ready, go):
        os.environ["MPTCPAPI_BROKER"] = path
        policy = mptcpapi.PathPolicy(mptcpapi.PathMode.ON_DEMAND, 0, 1 << 40)
        early = mptcpapi.mptcp_socket()
        mptcpapi.set_path_policy(early, policy)
        mptcpapi.set_fate_sharing(early)
        with listening() as server, mptcpapi.mptcp_socket() as sock:
            mptcpapi.add(sock, list(PATHS))
            mptcpapi.set_traffic(sock, mptcpapi.Traffic(bytes_to_send=1 << 30))
            mptcpapi.connect(sock, [server.getsockname()])
            accepted = server.accept()[0]

            def exchange():
                sock.send(b"x")
                accepted.send(accepted.recv(1))
                sock.recv(1)

            def backups():
                known = mptcpapi.all_stats(sock).subflows
                return sorted(str(one.subflow.local.ip) for one in known if one.subflow.backup)

            exchange()
            until("three paths", lambda: len(locals_of(sock)) == 3)
            of = {str(one.local.ip): one for one in mptcpapi.subflows(sock)}
            mptcpapi.set_backup(sock, of["10.2.0.1"])
            mptcpapi.close_subflow(sock, of["10.3.0.1"])
            mptcpapi.set_max_subflows(sock, 2)
            os.write(ready, b"x")
            os.read(go, 1)
            assert mptcpapi.path_policy(early) == policy and mptcpapi.fate_sharing(early)
            assert mptcpapi.traffic(sock).bytes_to_send == 1 << 30
            assert mptcpapi.max_subflows(sock) == 2
            exchange()
            time.sleep(1.5)  # longer than the first look
            assert locals_of(sock) == ["10.1.0.1", "10.2.0.1"] and backups() == ["10.2.0.1"]
            mptcpapi.set_max_subflows(sock, 0)
            time.sleep(1.5)
            assert locals_of(sock) == ["10.1.0.1", "10.2.0.1"], "closed by hand"
            mptcpapi.open_subflow(sock, "10.3.0.1")
            until("three paths again", lambda: len(locals_of(sock)) == 3)
            assert backups() == ["10.2.0.1"]
            accepted.close()
        early.close()

    with Broker() as broker:
        heard, ready = os.pipe()
        wait, go = os.pipe()
        child = Child(GOOD, user, broker.path, ready, wait)
        assert select.select([heard], [], [], 20)[0]
        broker.kill()
        broker.start()
        os.write(go, b"x")
        child.wait()


def nobody_answers():
    """Calls while it is away fail with EIO, in words, and can be repeated; what
    needs no broker works."""
    def user(path, ready, go):
        os.environ["MPTCPAPI_BROKER"] = path
        sock = mptcpapi.mptcp_socket()
        mptcpapi.add(sock, ["10.1.0.1", "10.2.0.1"])
        connection = mptcpapi.mptcp_socket()
        mptcpapi.add(connection, ["10.1.0.1", "10.2.0.1"])
        with listening() as server:
            mptcpapi.connect(connection, [server.getsockname()])
            accepted = server.accept()[0]
        accepted.send(b"x")
        connection.recv(1)
        calls = [lambda: mptcpapi.add(sock, "10.3.0.1"), lambda: mptcpapi.remove(sock, "10.2.0.1"),
                 lambda: mptcpapi.add(connection, "10.3.0.1"), lambda: mptcpapi.remove(connection, "10.2.0.1")]
        os.write(ready, b"x")
        os.read(go, 1)
        for call in calls:
            began = time.monotonic()
            try:
                call()
                raise AssertionError("done by nobody")
            except OSError as error:
                assert error.errno == errno.EIO and "the broker" in error.strerror, error
            assert time.monotonic() - began < 1.5
        assert mptcpapi.is_enabled(connection) and len(mptcpapi.subflows(connection)) >= 1
        mptcpapi.capabilities(connection)
        accepted.send(b"x")
        assert connection.recv(1) == b"x"
        os.write(ready, b"x")
        os.read(go, 1)
        for call in calls:
            call()
        assert listed(sock) == listed(connection) == ["10.1.0.1", "10.3.0.1"]

    with Broker() as broker:
        heard, ready = os.pipe()
        wait, go = os.pipe()
        child = Child(GOOD, user, broker.path, ready, wait)
        os.read(heard, 1)
        broker.kill()
        os.write(go, b"x")
        os.read(heard, 1)
        broker.start()
        os.write(go, b"x")
        child.wait()


class Oracle:
    """A broker that answers as it is told, or dies when it has heard."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="oracle.")
        os.chmod(self.directory.name, 0o755)
        self.path = os.path.join(self.directory.name, "socket")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        os.chmod(self.path, 0o777)
        self.listener.listen()
        self.listener.settimeout(10)
        self.line = None

    def hear(self):
        """The number of the next question that is no Hello, and its tag."""
        while True:
            self.line = self.line or self.listener.accept()[0]
            data, fds, _, _ = socket.recv_fds(self.line, wire.LIMIT, 4)
            for fd in fds:
                os.close(fd)
            if not data:
                self.die()
                continue
            read = wire.Reader(data[len(wire.MAGIC):])
            tag, asked = read.number(), read.number()
            if asked:
                return asked, tag
            namespace = struct.unpack("Q", self.listener.getsockopt(socket.SOL_SOCKET, 71, 8))[0]
            self.say(tag, wire.number(2) + wire.number(namespace) + b"\1\1")

    def say(self, tag, told):
        self.line.send(wire.MAGIC + wire.number(tag) + told)

    def refuse(self, tag, error):
        words = b"so it was told"
        self.say(tag, wire.number(1) + wire.number(2 * error) + wire.number(len(words)) + words)

    def die(self):
        self.line.close()
        self.line = None


def done_and_not_told():
    """One dies between doing and saying: what was to go is gone, and what would
    be there twice is not asked for twice."""
    remove, opening, closing, done = 2, 15, 16, wire.number(0)

    def user(path, server):
        os.environ["MPTCPAPI_BROKER"] = path
        sock = mptcpapi.mptcp_socket()
        sock.connect(server)
        sock.send(b"x")
        sock.recv(1)
        subflow = mptcpapi.subflows(sock)[0]

        def errno_of(call, *args):
            try:
                call(sock, *args)
            except OSError as error:
                assert "broker" in error.strerror or "told" in error.strerror, error
                return error.errno
            return 0
        return [errno_of(*words) for words in ((mptcpapi.remove, "10.2.0.1"), (mptcpapi.remove, "10.2.0.1"),
                                               (mptcpapi.close_subflow, subflow), (mptcpapi.close_subflow, subflow),
                                               (mptcpapi.open_subflow, "10.2.0.1"), (mptcpapi.open_subflow, "10.2.0.1"))]

    oracle = Oracle()
    with listening() as server:
        child = Child(GOOD, user, oracle.path, server.getsockname())
        accepted = server.accept()[0]
        accepted.send(accepted.recv(1))
        for number, error in ((remove, errno.EADDRNOTAVAIL), (closing, errno.ENOENT)):
            assert oracle.hear()[0] == number
            oracle.die()
            for _ in range(2):      # the same call, then the next
                asked, tag = oracle.hear()
                assert asked == number
                oracle.refuse(tag, error)
        assert oracle.hear()[0] == opening
        oracle.die()
        asked, tag = oracle.hear()  # the next call: it is asked once only
        assert asked == opening
        oracle.say(tag, done)
        told = child.result()
        assert told == [0, errno.EADDRNOTAVAIL, 0, errno.ENOENT, errno.EIO, 0], told
        accepted.close()


def stopped_cleanly():
    """SIGTERM in the midst of switches: the namespace is as it was, and the
    broker that follows knows what this one knew."""
    before = path_manager()
    with Broker() as broker, listening() as server, wire.mptcp() as waiting:
        with broker.client() as client:
            client.ask(wire.add("10.1.0.1", "10.2.0.1"), waiting)
        children = [Child(EVIL + at, switches, broker.path) for at in range(2)]
        dice = random.Random()
        for _ in range(15):
            time.sleep(0.1 * dice.random())
            status = broker.stop()
            assert status == 0, broker.said()
            assert path_manager() == before
            broker.start()
        print("      switches:", *[child.result() for child in children])
        with broker.client() as client:
            assert [ip for ip, _ in client.ask(wire.FACTS, waiting)["list"]] == ["10.1.0.1", "10.2.0.1"]
            waiting.bind(("10.1.0.1", 0))
            sock, accepted = connected(server, waiting)
            accepted.send(b"x")
            sock.recv(1)
            sock.send(b"x")
            until("two paths", lambda: subflows(sock) == 2)
        broker.stop()
        assert not os.path.exists(broker.path) or broker.process.returncode == 0


def killed_while_it_changes_the_namespace():
    """A server's list puts the namespace in userspace mode. At whatever system
    call the broker dies, its successor knows what the namespace was before."""
    before = path_manager()
    points = changed = 0
    with Broker("[default]\nservers = true\n") as broker:
        for call in ("pwrite64", "fcntl", "write", "sendmsg"):
            for point in range(1, 100):
                tracer = broker.kill_at(call, point)
                survived = ask_for_a_server(broker)
                broker.kill()
                tracer.wait(10)
                changed += not survived and path_manager() != before
                # Its journal tells of a listener that is gone meanwhile.
                broker.start()
                assert broker.stop() == 0
                assert path_manager() == before, f"killed at {call} {point}"
                os.unlink(os.path.join(broker.directory, "journal"))
                broker.start()
                if survived:
                    break
                points += 1
    print(f"      {points} points, the namespace was changed at {changed} of them")
    assert points > 3 and changed


def ask_for_a_server(broker):
    """Whether somebody lives to say that a server's list is made."""
    try:
        with listening() as server, broker.client() as client:
            return client.ask(wire.add("10.1.0.1"), server) == "done"
    except (OSError, wire.Dropped):
        return False


CASES = [killed_in_mid_transfer, killed_while_it_changes_the_namespace, what_happened_meanwhile, what_was_set, nobody_answers,
         done_and_not_told, stopped_cleanly]
