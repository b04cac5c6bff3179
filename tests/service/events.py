# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the broker tells of events: all of one's own, none of another's, and
nothing to one who doesn't read at the cost of others."""

import errno
import os
import select
import socket
import struct
import subprocess
import time

import mptcpapi
from mptcpapi import EventKind

from lab import EVIL, GOOD, MUCH, PATHS, SERVER, Broker, Child, as_user, backed, connected, listening, told_to_end, until, watched

# As many as a process may have open for itself.
POLICY = "[default]\nclients = 16384\nsockets = 16384\nrequests = 1000000\n"


def with_list(server, first=PATHS[0]):
    """A fully established connection with a list, both ends."""
    sock = mptcpapi.mptcp_socket()
    mptcpapi.add(sock, first)
    mptcpapi.connect(sock, server.getsockname())
    accepted = server.accept()[0]
    for one, other in ((sock, accepted), (accepted, sock)):
        one.sendall(b"x")
        assert other.recv(1) == b"x"
    return sock, accepted


# ---- the broker ends ------------------------------------------------------------

def bereaved(broker_path, ready):
    backed(broker_path)
    server = listening()
    sock, accepted = with_list(server)
    one, everything = mptcpapi.Events(sock), mptcpapi.Events()
    unread = mptcpapi.Events(sock, current=True)
    assert select.select([unread], [], [], 10)[0]
    os.write(ready, b".")
    for events in (one, everything):
        try:
            events.wait(10)
            raise AssertionError("an event of a broker that is gone")
        except OSError as error:
            assert error.errno == errno.EIO, error
        # Once; then there is nothing more.
        assert events.read() is None and events.read() is None
        assert select.select([events], [], [], 0)[0]
    # A dispatch that had something to tell leaves the error to the next.
    seen = []
    assert unread.dispatch(lambda event: seen.append(event.what)) == 1 and seen == [EventKind.UP]
    try:
        raise AssertionError(unread.dispatch(seen.append))
    except OSError as error:
        assert error.errno == errno.EIO, error
    assert unread.dispatch(seen.append) == 0 and len(seen) == 1
    deadline = time.monotonic() + 20
    while True:
        try:
            again = mptcpapi.Events(sock, current=True)
            break
        except OSError as error:
            assert error.errno in (errno.EIO, errno.EPERM) and time.monotonic() < deadline, error
            time.sleep(0.01)
    up = again.wait(10)
    assert (up.what, up.connid) == (EventKind.UP, mptcpapi.connection_id(sock))
    mptcpapi.add(sock, PATHS[1])
    assert again.wait(10).what == EventKind.SUBFLOW_UP
    # Known from before: the process's own.
    assert mptcpapi.Events(current=True).wait(10).connid == up.connid
    sock.close()
    assert again.wait(10).what == EventKind.DOWN and again.wait(10) is None
    accepted.close()


def a_broker_that_is_killed():
    with Broker(POLICY) as broker:
        read, write = os.pipe()
        child = Child(GOOD, bereaved, broker.path, write)
        os.read(read, 1)
        broker.kill()
        broker.start()
        child.wait()


# ---- what is done by hand -----------------------------------------------------

def by_hand(path):
    backed(path)
    with listening() as server, mptcpapi.Events() as events:
        sock, accepted = with_list(server)
        assert events.wait(10).what == EventKind.UP
        # Nobody answers, whoever chose the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
        mptcpapi.set_path_policy(sock, mptcpapi.PathMode.MANUAL)
        mptcpapi.add(sock, PATHS[1:])
        for local in ((PATHS[1], 0), (PATHS[1], 4711)):
            try:
                mptcpapi.open_subflow(sock, local, wait=True)
                raise AssertionError("there is an answer")
            except TimeoutError as error:
                assert "no answer in time" in str(error), error
            event = events.wait(10)
            assert (event.what, event.error, event.origin) == (
                EventKind.SUBFLOW_DOWN, errno.ETIMEDOUT, mptcpapi.Origin.NETWORK), event
            assert event.subflow.local.host == PATHS[1] and event.subflow.remote == server.getsockname(), event
        mptcpapi.open_subflow(sock, PATHS[2], wait=True)
        assert events.wait(10).what == EventKind.SUBFLOW_UP
        third = next(one for one in mptcpapi.subflows(sock) if one.local.host == PATHS[2])
        mptcpapi.close_subflow(sock, third)
        event = events.wait(10)
        assert (event.what, event.error, event.origin) == (EventKind.SUBFLOW_DOWN, 0, mptcpapi.Origin.APP), event
        sock.close()
        accepted.close()


def what_is_opened_and_closed_by_hand():
    """How it ended, and by whom."""
    subprocess.run(["ip", "rule", "add", "to", PATHS[1], "from", SERVER, "blackhole", "pref", "0"], check=True)
    subprocess.run(["ip", "rule", "add", "lookup", "local", "pref", "1"], check=True)
    subprocess.run(["ip", "rule", "del", "lookup", "local", "pref", "0"], check=True)
    with Broker(POLICY) as broker:
        as_user(GOOD, by_hand, broker.path)


# ---- others ---------------------------------------------------------------------

def busy(path, count, ending):
    """Has connections with all that can happen to them."""
    backed(path)
    server = listening()
    ids, own = set(), 0
    with mptcpapi.Events() as events:
        while not told_to_end(ending) or own < count:
            sock, accepted = with_list(server)
            ids.add(mptcpapi.connection_id(sock))
            mptcpapi.add(sock, PATHS[1])
            mptcpapi.remove(sock, PATHS[1])
            sock.close()
            accepted.close()
            while True:
                event = events.wait(10)
                assert event.connid in ids, event
                own += 1
                if event.what == EventKind.DOWN:
                    break
    return own


def hears_nothing(path, ending):
    backed(path)
    with mptcpapi.Events(current=True) as events:
        told_to_end(ending, 30)
        try:
            raise AssertionError(events.read())
        except BlockingIOError:
            pass
    return True


def nobody_hears_of_others():
    with Broker(POLICY) as broker:
        children = [Child(GOOD, hears_nothing, broker.path), Child(EVIL, hears_nothing, broker.path)]
        # Other users, and other processes of the same.
        talkers = [Child(uid, busy, broker.path, 40) for uid in (GOOD, EVIL, EVIL)]
        time.sleep(1)
        assert all(talker.result() >= 40 for talker in talkers)
        assert all(child.result() for child in children)


# ---- one who doesn't read ---------------------------------------------------------

def deaf(path, toggles):
    backed(path)
    server = listening()
    sock, _accepted = with_list(server)
    mptcpapi.add(sock, PATHS[1], backup=True)
    until("two subflows", lambda: len(mptcpapi.subflows(sock)) == 2)
    each = [mptcpapi.Events(sock) for _ in range(16)]
    try:
        mptcpapi.Events(sock)
        raise AssertionError("a seventeenth subscription")
    except OSError as error:
        assert error.errno == errno.EDQUOT, error
    everything = [mptcpapi.Events() for _ in range(16)]
    for turn in range(toggles):
        mptcpapi.add(sock, PATHS[1], backup=turn % 2 == 1)
    sock.close()
    for events in each:
        told = lost = 0
        for event in events:
            told += event.what == EventKind.PRIORITY
            lost += event.lost if event.what == EventKind.OVERFLOW else 0
            last = event.what
        assert (told + lost, last) == (toggles, EventKind.DOWN), (told, lost, last)
        assert lost > toggles / 2, "less was to wait"
    for events in everything:
        events.close()


def one_who_does_not_read():
    with Broker(POLICY) as broker, broker.unchanged(megabytes=16), watched(broker):
        as_user(EVIL, deaf, broker.path, 5000 if MUCH else 1000, seconds=80)


# ---- many -------------------------------------------------------------------------

def hears_its_own(path, connections, each):
    """Subscriptions to connections of its own: five events each, in order."""
    backed(path)
    server = listening()
    server.setblocking(False)
    poll = select.epoll()
    story = [EventKind.UP, EventKind.SUBFLOW_UP, EventKind.PRIORITY, EventKind.SUBFLOW_DOWN, EventKind.DOWN]
    socks, ids, hearers, steps = [], {}, {}, {}
    for number in range(connections):
        sock = mptcpapi.mptcp_socket()
        mptcpapi.add(sock, PATHS[0])
        socks.append(sock)
        for at in range(each):
            events = mptcpapi.Events(sock)
            hearers[events.fileno()] = events, number, at
            steps[events.fileno()] = 0
            poll.register(events.fileno(), select.EPOLLIN)
    accepted, begun, done, total = [], 0, 0, 0
    while done < len(hearers):
        while begun < connections and begun - done // each < 200:
            ids[begun] = mptcpapi.connect(socks[begun], server.getsockname())
            begun += 1
        while True:
            try:
                accepted.append(server.accept()[0])
                accepted[-1].sendall(b"x")
            except BlockingIOError:
                break
        ready = poll.poll(10)
        assert ready, f"nothing for 10 s, {done} of {len(hearers)} done"
        for fd, _ in ready:
            events, number, at = hearers[fd]
            try:
                event = events.read()
            except BlockingIOError:
                continue
            if event is None:
                assert steps[fd] == len(story)
                poll.unregister(fd)
                done += 1
                continue
            assert (event.what, event.connid) == (story[steps[fd]], ids[number]), (event, steps[fd])
            steps[fd] += 1
            total += 1
            if at:
                continue
            if event.what == EventKind.UP:
                mptcpapi.add(socks[number], PATHS[1], backup=True)
            elif event.what == EventKind.SUBFLOW_UP:
                mptcpapi.add(socks[number], PATHS[1])
            elif event.what == EventKind.PRIORITY:
                mptcpapi.remove(socks[number], PATHS[1])
            elif event.what == EventKind.SUBFLOW_DOWN:
                socks[number].close()
    for sock in accepted:
        sock.close()
    return total


def many_hear_of_their_own():
    # Ten thousand, four to each connection, as two users.
    connections = 1250
    with Broker(POLICY) as broker:
        children = [Child(uid, hears_its_own, broker.path, connections, 4) for uid in (GOOD, EVIL)]
        total = sum(child.wait(85) for child in children)
        print(f"      {8 * connections} subscriptions, {total} events", flush=True)
        assert total == 2 * connections * 4 * 5


# ---- sockets that are not connected -------------------------------------------------

def ended(events, seconds=10):
    """How long it takes until nothing follows, and nothing came; its
    descriptor tells."""
    began, poll = time.monotonic(), select.poll()
    poll.register(events, select.POLLIN)
    while True:
        left = began + seconds - time.monotonic()
        assert poll.poll(max(0, 1000 * left)), f"no end within {seconds} s"
        try:
            event = events.read()
        except BlockingIOError:
            continue
        assert event is None, event
        return time.monotonic() - began


def keeps(pipe, sock):
    os.read(pipe, 1)
    sock.close()
    return True


def closes_late(path):
    """Whoever has it last closes it: another process, or nobody while it is
    under way."""
    backed(path)
    read, write = os.pipe()
    held, sent = mptcpapi.mptcp_socket(), mptcpapi.mptcp_socket()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    last = Child(os.getuid(), keeps, read, held)
    with mptcpapi.Events(held) as of_held, mptcpapi.Events(sent) as of_sent, mptcpapi.mptcp_socket() as closed:
        socket.send_fds(one, [b"x"], [sent.fileno()])
        held.close()
        sent.close()
        # Looked at later than those.
        with mptcpapi.Events(closed) as of_closed:
            closed.close()
            ended(of_closed)
        for events in of_held, of_sent:
            try:
                raise AssertionError(events.read())
            except BlockingIOError:
                pass
        os.write(write, b".")
        assert last.wait()
        ended(of_held)
        for fd in socket.recv_fds(other, 1, 1)[1]:
            os.close(fd)
        ended(of_sent)
    return True


def the_last_to_close_a_socket_ends_it():
    with Broker(POLICY) as broker, broker.unchanged():
        assert as_user(GOOD, closes_late, broker.path)


def shares(path):
    """A child connects what its parent made known first, with one address of
    the peer and with two."""
    backed(path)
    server = listening()
    peer = server.getsockname()
    for peers in ([peer], [peer, (peer[0], 9)]):
        sock = mptcpapi.mptcp_socket()
        mptcpapi.add(sock, PATHS[0])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with mptcpapi.Events() as events:
                    mptcpapi.add(sock, PATHS[1])
                    connid = mptcpapi.connect(sock, peers)
                    event = events.wait(10)
                    status = int((event.what, event.connid) != (EventKind.UP, connid))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0, len(peers)
        sock.close()


def who_connects_anothers_socket_hears_of_it():
    with Broker(POLICY) as broker, broker.unchanged():
        as_user(GOOD, shares, broker.path)


def in_vain(path, count):
    """Asks about many sockets that are never connected, or not for long, in
    all the ways that there are."""
    backed(path)
    server, plain = listening(), socket.create_server((PATHS[0], 0), backlog=4096)
    kept, accepted, longest = [], [], 0
    for number in range(count):
        sock = mptcpapi.mptcp_socket()
        events = mptcpapi.Events(sock)
        if number % 8 == 0:
            kept.append((sock, events))
        elif number % 8 == 1:
            sock.connect(plain.getsockname())
            accepted.append(plain.accept()[0])
            kept.append((sock, events))
        elif number % 8 == 2:
            # Nobody waits for it, and it stays where it was noted.
            events.close()
            accepted.append(sock)
        elif number % 8 == 3:
            sock.connect(server.getsockname())
            accepted += [sock, server.accept()[0]]
            events.close()
        else:
            sock.close()
            events.close()
    for sock, events in kept:
        try:
            raise AssertionError(events.read())
        except BlockingIOError:
            sock.close()
    for _, events in kept:
        longest = max(longest, ended(events))
        events.close()
    for sock in accepted:
        sock.close()
    return longest


def many_who_wait_in_vain():
    count = 8000 if MUCH else 2000
    with Broker(POLICY) as broker, broker.unchanged(), watched(broker):
        children = [Child(uid, in_vain, broker.path, count) for uid in (EVIL, EVIL + 1)]
        longest = max(child.wait(80) for child in children)
        print(f"      {count} sockets for each of two users, the last known to be closed after {longest:.2f} s",
              flush=True)


def waits(path, count, ready, ending):
    backed(path)
    socks = [mptcpapi.mptcp_socket() for _ in range(count)]
    events = [mptcpapi.Events(sock) for sock in socks]
    os.write(ready, b".")
    told_to_end(ending, 60)
    for sock in socks:
        sock.close()
    return max(ended(one) for one in events)


def waiting_costs_little():
    """Looks at many sockets, and none at all where there are none to look at."""
    count, seconds = 4000, 4
    with Broker(POLICY) as broker, broker.unchanged():
        time.sleep(1)
        before = broker.worked()
        time.sleep(seconds)
        idle = broker.worked() - before
        read, write = os.pipe()
        child = Child(GOOD, waits, broker.path, count, write)
        os.close(write)
        assert os.read(read, 1), "it has failed"
        before = broker.worked()
        time.sleep(seconds)
        busy = broker.worked() - before
        longest = child.result()
        print(f"      {idle / seconds:.2f} ms a second without, {busy / seconds:.1f} ms with {count} waiting; ended "
              f"within {longest:.2f} s", flush=True)
        assert idle / seconds < 5 and busy / seconds < 100


CASES = [a_broker_that_is_killed, what_is_opened_and_closed_by_hand, the_last_to_close_a_socket_ends_it,
         who_connects_anothers_socket_hears_of_it, many_who_wait_in_vain, waiting_costs_little,
         nobody_hears_of_others, one_who_does_not_read, many_hear_of_their_own]
