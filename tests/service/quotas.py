# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the policy allows, and that what was taken is given back."""

import errno
import os
import signal
import time

import mptcpapi

import wire
from lab import EVIL, GOOD, PATHS, SERVER, Broker, Child, as_user, backed, connected, listening, path_manager, \
    subflows, told_to_end, until


def only(errno_, words, act):
    """It is refused with this errno, and these words are in why."""
    try:
        act()
    except OSError as refused:
        assert refused.errno == errno_, refused
        assert words in refused.strerror, refused
        return
    raise AssertionError(f"not refused: {words}")


def fill(client, count):
    """Takes so many of a user's sockets, and can take no more."""
    sockets = []
    for _ in range(count):
        sockets.append(wire.mptcp())
        try:
            client.ask(wire.add("10.1.0.1"), sockets[-1])
        except wire.Refused:
            dispose(client, sockets)
            raise
    with wire.mptcp() as more:
        only(errno.EDQUOT, f"{count} sockets", lambda: client.ask(wire.add("10.1.0.1"), more))
        only(errno.EDQUOT, f"{count} sockets", lambda: client.ask(wire.TAKE, more))
        # Looking costs nothing.
        client.ask(wire.FACTS, more)
        client.ask(wire.CONTROL, more)
        # Those that are there go on.
        client.ask(wire.add("10.2.0.1"), sockets[0])
        client.ask(wire.remove("10.2.0.1"), sockets[0])
    return sockets


def dispose(client, sockets):
    keys = [wire.key_of(sock) for sock in sockets]
    for sock in sockets:
        sock.close()
    client.ask(wire.closed(keys))


def so_many_sockets():
    """`sockets`: each way to be done with one gives it back."""
    def user(path):
        with wire.Client(path) as client:
            dispose(client, fill(client, 3))
            # Under control, and nothing else asked.
            sockets = [wire.mptcp() for _ in range(3)]
            for sock in sockets:
                client.ask(wire.TAKE, sock)
            dispose(client, sockets)
            # Forgotten on request.
            sockets = fill(client, 3)
            for sock in sockets:
                client.ask(wire.FORGET, sock)
            dispose(client, fill(client, 3))
            # A list that is empty again.
            sockets = fill(client, 3)
            for sock in sockets:
                client.ask(wire.remove("10.1.0.1"), sock)
            dispose(client, fill(client, 3))
            # A connection's end; also one that never was, and one that was reset.
            sockets = fill(client, 3)
            server = listening()
            ends = [connected(server, sock) for sock in sockets[:2]]
            sockets[2].connect_ex((SERVER, 1))
            for sock, accepted in ends:
                sock.send(b"x")
                accepted.recv(1)
            # One that is connected is not said to be closed.
            client.ask(wire.closed([wire.key_of(sockets[0])]))
            assert client.ask(wire.FACTS, sockets[0])["list"]
            only(errno.EDQUOT, "3 sockets", lambda: client.ask(wire.TAKE, wire.mptcp()))
            for sock, accepted in ends:
                sock.close()
                accepted.close()
            dispose(client, sockets[2:])
            kept = []

            def free():
                kept.append(wire.mptcp())
                return client.errno(wire.add("10.1.0.1"), kept[-1]) == 0
            for _ in range(3):
                until("a connection's end gives its place back", free)
        return True

    with Broker(f"grace = 0\n[user.{EVIL}]\nsockets = 3\n") as broker:
        as_user(EVIL, user, broker.path)
        # The user's programs are gone, and with them all that they left.
        def others(path):
            with wire.Client(path) as client:
                def none_is_taken():
                    try:
                        dispose(client, fill(client, 3))
                        return True
                    except OSError:
                        return False
                until("the dead program's places", none_is_taken)
        as_user(EVIL, others, broker.path)


def grace():
    """A list outlives its program's connection to the broker, and the program
    by its grace."""
    def user(path, ending):
        """Loses its connection to the broker, and is served again."""
        with wire.Client(path) as client:
            sockets = fill(client, 2)
        time.sleep(6)  # longer than grace and a sweep
        with wire.Client(path) as client:
            assert [ip for ip, _ in client.ask(wire.FACTS, sockets[0])["list"]] == ["10.1.0.1"]
        connected(client=sockets[0])
    with Broker(f"grace = 1\n[default]\nsockets = 2\n") as broker:
        as_user(EVIL, user, broker.path)


def nothing_but_taken():
    """Sockets that were put under control and nothing else count as long as
    their program is there, and no longer."""
    def take(path):
        with wire.Client(path) as client:
            return [client.errno(wire.TAKE, sock) for sock in [wire.mptcp() for _ in range(3)]]

    def user(path):
        with wire.Client(path) as client:
            sockets = [wire.mptcp() for _ in range(2)]
            for sock in sockets:
                client.ask(wire.TAKE, sock)
            time.sleep(6)  # longer than a sweep
            assert client.errno(wire.TAKE, wire.mptcp()) == errno.EDQUOT
            return True

    with Broker(f"grace = 0\n[default]\nsockets = 2\n") as broker:
        as_user(EVIL, user, broker.path)
        until("the dead program's places", lambda: as_user(EVIL, take, broker.path) == [0, 0, errno.EDQUOT])


def closed_sockets_make_room():
    """The library tells of sockets that were closed before they connected, at
    the latest when there is no room for another."""
    def user(path):
        backed(path)
        kept = mptcpapi.mptcp_socket()
        mptcpapi.add(kept, PATHS[0])
        for _ in range(20):
            with mptcpapi.mptcp_socket() as sock:
                mptcpapi.add(sock, PATHS[0])
        others = [mptcpapi.mptcp_socket() for _ in range(2)]
        mptcpapi.add(others[0], PATHS[0])
        only(errno.EDQUOT, "2 sockets", lambda: mptcpapi.add(others[1], PATHS[0]))
        return True

    with Broker(f"[default]\nsockets = 2\n") as broker:
        as_user(EVIL, user, broker.path)


def so_many_clients():
    """`clients`, and nobody at all."""
    def user(path):
        clients = [wire.Client(path) for _ in range(3)]
        for client in clients:
            client.ask(wire.HELLO)
        with wire.Client(path) as more:
            only(errno.EDQUOT, "too many connections", lambda: more.ask(wire.HELLO))
        clients.pop().close()

        def welcome():
            with wire.Client(path) as another:
                return another.errno(wire.HELLO) == 0
        until("a place", welcome)

    def nobody(path):
        with wire.Client(path) as client:
            only(errno.EACCES, "do nothing", lambda: client.ask(wire.HELLO))

    with Broker(f"[user.{EVIL}]\nclients = 3\n[user.{GOOD}]\nallow = false\n") as broker:
        as_user(EVIL, user, broker.path)
        as_user(GOOD, nobody, broker.path)


def so_many_requests():
    """`requests`: a burst of two seconds' worth, and no more than that."""
    def user(path):
        with wire.Client(path) as client, wire.mptcp() as sock:
            began = time.monotonic()
            done = 0
            while client.errno(wire.FACTS, sock) == 0:
                done += 1
            took = time.monotonic() - began
            assert 100 <= done <= 100 + 50 * took + 1, (done, took)
            only(errno.EDQUOT, "requests", lambda: client.ask(wire.add("10.1.0.1"), sock))
            client.ask(wire.HELLO)
            until("the next", lambda: client.errno(wire.FACTS, sock) == 0, 1)

    with Broker("[default]\nrequests = 50\n") as broker:
        as_user(EVIL, user, broker.path)


def which_addresses():
    """`use`, `never`, `advertise`, by address, by prefix and by interface; read
    again on SIGHUP."""
    os.system("ip link add near7 type veth peer name far7 && ip link set near7 up && ip link set far7 up && "
              "ip addr add 10.7.0.1/24 dev near7 && ip addr add 10.7.0.2/24 dev near7")

    def user(path, allowed, forbidden, unadvertised=()):
        with wire.Client(path) as client:
            for address in allowed:
                with wire.mptcp() as sock:
                    client.ask(wire.add(address), sock)
            for address in forbidden:
                with wire.mptcp() as sock:
                    only(errno.EACCES, address, lambda: client.ask(wire.add(address), sock))
                    only(errno.EACCES, address, lambda: client.ask(wire.add("10.1.0.1", address), sock))
                    # All or nothing.
                    assert client.ask(wire.FACTS, sock)["list"] is None
            for address in unadvertised:
                with wire.mptcp() as sock:
                    only(errno.EACCES, "advertise", lambda: client.ask(wire.add(address, subflow=False), sock))
                    client.ask(wire.add(address, advertise=False), sock)

    with Broker("[default]\nuse = ['lo', '10.7.0.0/31', '10.7.0.2']\nnever = ['10.3.0.0/16']\n"
                f"advertise = ['10.1.0.1']\n[user.{GOOD}]\nnever = ['near*']\nuse = ['*']\n") as broker:
        as_user(EVIL, user, broker.path, ["10.1.0.1", "10.2.0.1", "10.7.0.1", "10.7.0.2"], ["10.3.0.1"], ["10.2.0.1"])
        as_user(GOOD, user, broker.path, ["10.1.0.1", "10.3.0.1"], ["10.7.0.1", "10.7.0.2"])
        os.system("ip addr add 10.7.0.3/24 dev near7")
        as_user(EVIL, user, broker.path, [], ["10.7.0.3"])
        os.system("ip addr del 10.7.0.3/24 dev near7; ip addr add 10.7.0.3/32 dev lo")
        until("its new place is known", lambda: as_user(EVIL, lambda path: wire.Client(path).errno(
            wire.add("10.7.0.3"), wire.mptcp()) == 0, broker.path))
        # A policy that is wrong changes nothing, a right one all.
        for text, good in (("[default]\nuse = ['10.0.0.0/99']\n", False), ("[default]\nuse = ['10.7.0.0/16']\n", True)):
            with open(broker.config, "w") as file:
                file.write(text)
            broker.process.send_signal(signal.SIGHUP)
            word = "read again" if good else "10.0.0.0/99"
            until("the policy is read again", lambda: word in broker.said())
            as_user(EVIL, user, broker.path, ["10.7.0.2"], ["10.1.0.1" if good else "10.3.0.1"])


def server_lists():
    """`servers`: off for ordinary users, since it changes the whole namespace;
    the namespace is as before once it is over."""
    def user(path, allowed):
        with wire.Client(path) as client:
            with listening() as server:
                if not allowed:
                    only(errno.EACCES, "server list", lambda: client.ask(wire.add(*PATHS), server))
                    assert path_manager() in ("kernel", "0")
                    return
                client.ask(wire.add(*PATHS), server)
                assert path_manager() in ("userspace", "1")
                sock, accepted = connected(server)
                accepted.send(b"x")
                sock.recv(1)
                assert client.ask(wire.FACTS, accepted)["list"]

    with Broker(f"[user.{EVIL}]\nservers = true\n") as broker:
        before = path_manager()
        as_user(GOOD, user, broker.path, False)
        as_user(EVIL, user, broker.path, True)
        assert broker.stop() == 0
        assert path_manager() == before


def named_peers():
    """`peers`: subflows go where the peer itself has shown that it is."""
    def user(path, server, allowed):
        with wire.Client(path) as client, wire.mptcp() as sock:
            client.ask(wire.add("10.1.0.1", "10.2.0.1"), sock)
            start = client.ask(wire.number(4) + wire.sequence([wire.address(*server), wire.address("10.3.0.1", 1)]), sock)
            assert {ip for ip, _ in start} == {"10.1.0.1", "10.2.0.1"}
            sock.bind(("10.1.0.1", 0))
            sock.connect(server)
            sock.send(b"x")
            until("two paths", lambda: subflows(sock) >= 2)
            named = ("10.3.0.1", 1) in client.ask(wire.FACTS, sock)["peers"]
            assert named == allowed
            elsewhere = client.errno(wire.opening(None, ("10.3.0.1", 2), seconds=5), sock)
            assert elsewhere == (errno.ECONNREFUSED if allowed else errno.EACCES), elsewhere
            assert client.errno(wire.opening(("10.2.0.1", 0), (server[0], 0)), sock) == 0

    with Broker(f"[user.{GOOD}]\npeers = true\n") as broker, listening() as server:
        child = Child(0, serve_each, server)
        as_user(EVIL, user, broker.path, server.getsockname(), False)
        as_user(GOOD, user, broker.path, server.getsockname(), True)
        child.result()


def ports_that_take_privilege():
    """A connection from one has further subflows all the same, from ports that
    the broker can have, which has no privilege but CAP_NET_ADMIN."""
    with Broker() as broker, listening() as server, broker.client() as client, wire.mptcp() as sock:
        sock.bind(("10.1.0.1", 700))
        client.ask(wire.add("10.1.0.1", "10.2.0.1"), sock)
        sock.connect(server.getsockname())
        accepted = server.accept()[0]
        sock.send(b"x")
        until("two paths", lambda: subflows(sock) == 2)
        assert client.errno(wire.opening(("10.2.0.1", 0), server.getsockname(), seconds=5), sock) == 0
        assert client.errno(wire.opening(("10.2.0.1", 701), server.getsockname(), seconds=5), sock) == errno.EACCES
        accepted.close()


def shared_fates():
    """`fate-sharing`: the default where a program says nothing."""
    def user(path, expected):
        os.environ["MPTCPAPI_BROKER"] = path
        with mptcpapi.mptcp_socket() as sock:
            assert mptcpapi.fate_sharing(sock) == expected
            mptcpapi.add(sock, ["10.1.0.1", "10.2.0.1"])
            assert mptcpapi.fate_sharing(sock) == expected
            mptcpapi.set_fate_sharing(sock, not expected)
            assert mptcpapi.fate_sharing(sock) != expected
        for said in (None, False):
            with listening() as server, mptcpapi.mptcp_socket() as sock:
                mptcpapi.add(sock, ["10.1.0.1", "10.2.0.1"])
                if said is not None:
                    mptcpapi.set_fate_sharing(sock, said)
                mptcpapi.connect(sock, [server.getsockname()])
                accepted = server.accept()[0]
                sock.send(b"x")
                accepted.send(accepted.recv(1))
                sock.recv(1)
                until("two paths", lambda: subflows(sock) == 2)
                first = next(one for one in mptcpapi.subflows(sock) if one.initial)
                mptcpapi.close_subflow(sock, first)
                ends = expected and said is None
                until("what is to be left", lambda: subflows(sock) == (0 if ends else 1))
                accepted.close()

    with Broker(f"[user.{GOOD}]\nfate-sharing = true\n") as broker:
        as_user(EVIL, user, broker.path, False)
        as_user(GOOD, user, broker.path, True)


def serve_each(server, ending):
    """Answers one byte to each connection and keeps it."""
    kept = []
    server.settimeout(0.05)
    while not told_to_end(ending):
        try:
            accepted = server.accept()[0]
        except TimeoutError:
            continue
        accepted.settimeout(1)
        accepted.send(accepted.recv(1))
        kept.append(accepted)


def what_is_not_registered():
    """Remarks about sockets that nothing was asked of leave nothing behind."""
    def user(path):
        with wire.Client(path) as client, wire.mptcp() as sock:
            for ask in (wire.FORGET, wire.DISCONNECTED):
                client.ask(ask, sock)
            assert client.ask(wire.FACTS, sock) == {"list": None, "peers": []}
    with Broker() as broker:
        as_user(EVIL, user, broker.path)


def twenty_thousand_sockets():
    """Nothing leaks: they come, with a list, and go, each in its way."""
    def told(path):
        with wire.Client(path) as client:
            for _ in range(20):
                sockets = [wire.mptcp() for _ in range(400)]
                for sock in sockets:
                    client.ask(wire.add("10.1.0.1"), sock)
                dispose(client, sockets)

    def by_the_library(path):
        os.environ["MPTCPAPI_BROKER"] = path
        for _ in range(8000):
            with mptcpapi.mptcp_socket() as sock:
                mptcpapi.add(sock, "10.1.0.1")

    def connecting(path):
        os.environ["MPTCPAPI_BROKER"] = path
        server = listening()
        for at in range(4000):
            sock = mptcpapi.mptcp_socket()
            mptcpapi.add(sock, "10.1.0.1")
            sock.connect(server.getsockname())
            accepted = server.accept()[0]
            if at % 2:
                sock.send(b"x")
                accepted.recv(1)
            sock.close()
            accepted.close()

    def all_are_free(path):
        with wire.Client(path) as client:
            def free():
                try:
                    fill(client, 500)
                    return True
                except OSError:
                    return False
            until("all places", free)

    with open("/proc/sys/net/ipv4/tcp_max_tw_buckets", "w") as file:
        file.write("100")
    with Broker("grace = 0\n[default]\nsockets = 500\n") as broker, broker.unchanged(megabytes=8):
        children = [Child(EVIL + at, function, broker.path)
                    for at, function in enumerate((told, by_the_library, connecting))]
        for child in children:
            child.wait()
        children = [Child(EVIL + at, all_are_free, broker.path) for at in range(3)]
        for child in children:
            child.wait()


CASES = [so_many_sockets, grace, nothing_but_taken, closed_sockets_make_room, so_many_clients, so_many_requests,
         which_addresses, server_lists, named_peers, ports_that_take_privilege, shared_fates,
         what_is_not_registered, twenty_thousand_sockets]
