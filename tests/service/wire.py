# SPDX-License-Identifier: MIT OR Apache-2.0
"""The broker's protocol, written down a second time: what the tests say is not
what the library would say."""

import ipaddress
import os
import socket
import struct

MAGIC = b"MPA\x01"
LIMIT = 8192
MPTCP = 262
SO_COOKIE = 57


class Refused(OSError):
    """The broker's no; errno and words."""


class Dropped(Exception):
    """The broker has closed the connection."""


# ---- values to bytes ----------------------------------------------------------

def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def address(text, port=0, scope=0):
    ip = ipaddress.ip_address(text)
    if ip.version == 4:
        return number(0) + ip.packed + number(port)
    return number(1) + ip.packed + number(port) + number(scope)


def entry(text, port=0, backup=False, advertise=True, subflow=True):
    return address(text, port) + bytes([backup, advertise, subflow])


def sequence(items):
    return number(len(items)) + b"".join(items)


HELLO = number(0)
RESPECT_BINDING = number(3)
TAKE = number(5)
CONTROL = number(6)
FACTS = number(7)
DISCONNECTED = number(8)
FORGET = number(9)
SETTINGS = number(13)
OPCODES = 18


def add(*addresses, **how):
    return number(1) + sequence([entry(text, **how) for text in addresses])


def remove(*addresses, seconds=0, nanoseconds=0):
    return number(2) + sequence([address(text) for text in addresses]) + number(seconds) + number(nanoseconds)


def before_connect(text, port):
    return number(4) + sequence([address(text, port)])


def most_subflows(count):
    return number(14) + number(0) + bytes([count])


def opening(local=None, remote=None, backup=False, seconds=None):
    where = [b"\0" if end is None else b"\1" + address(*end) for end in (local, remote)]
    wait = b"\0" if seconds is None else b"\1" + number(seconds) + number(0)
    return number(15) + b"".join(where) + bytes([backup]) + wait


def closing(local, remote):
    return number(16) + address(*local) + address(*remote)


def pinning(local, remote, backup):
    return number(17) + address(*local) + address(*remote) + bytes([backup])


def closed(keys):
    return number(10) + sequence([number(cookie) + number(inode) for cookie, inode in keys])


def request(tag, ask):
    return MAGIC + number(tag) + ask


def key_of(sock):
    cookie = struct.unpack("Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]
    return cookie, os.fstat(sock.fileno()).st_ino


# ---- bytes to values ----------------------------------------------------------

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def bytes(self, count):
        taken = self.data[self.at:self.at + count]
        assert len(taken) == count, f"a reply cut short: {self.data!r}"
        self.at += count
        return taken

    def number(self):
        value = shift = 0
        while True:
            byte = self.bytes(1)[0]
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self):
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def bool(self):
        return self.bytes(1) == b"\x01"

    def option(self, what):
        return what() if self.bool() else None

    def address(self):
        version_6 = self.number()
        packed, port = self.bytes(16 if version_6 else 4), self.number()
        if version_6:
            self.number()  # the scope
        return str(ipaddress.ip_address(packed)), port

    def addresses(self):
        return [self.address() for _ in range(self.number())]


def reply(data):
    """Tag and value of a reply; a refusal is a value here."""
    read = Reader(data)
    assert read.bytes(4) == MAGIC, data
    tag, kind = read.number(), read.number()
    if kind == 0:
        told = "done"
    elif kind == 1:
        errno = read.signed()
        told = Refused(errno, read.bytes(read.number()).decode())
    elif kind == 2:
        told = {"namespace": read.number(), "switch": read.bool(), "listen": read.bool()}
    elif kind == 3:
        told = read.option(read.addresses)
    elif kind == 4:
        told = read.option(read.bool)
    elif kind == 5:
        told = {"list": read.option(read.addresses), "peers": read.addresses()}
    elif kind == 8:
        told = {"most": read.bytes(1)[0], "policy": [read.number() for _ in range(3)],
                "traffic": [read.number() for _ in range(4)], "profile": read.number(),
                "redundancy": read.number(), "fate": read.option(read.bool)}
    else:
        raise AssertionError(f"a reply of an unknown kind: {data!r}")
    assert read.at == len(data), f"a reply with more behind it: {data!r}"
    return tag, told


# ---- a client -----------------------------------------------------------------

class Client:
    """A connection to the broker."""

    def __init__(self, path, seconds=20):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(seconds)
        self.sock.connect(path)
        self.tag = 0

    def send(self, data, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        self.sock.sendmsg([data], ancillary)

    def receive(self):
        try:
            data = self.sock.recv(LIMIT)
        except ConnectionError as error:
            raise Dropped(str(error)) from None
        if not data:
            raise Dropped("hung up")
        return reply(data)

    def ask(self, ask, sock=None):
        """Asks about a socket (or a descriptor's number); raises a refusal."""
        self.tag += 1
        try:
            fd = sock if sock is None or isinstance(sock, int) else sock.fileno()
            self.send(request(self.tag, ask), () if sock is None else (fd,))
        except ConnectionError:
            pass  # why is to be read
        tag, told = self.receive()
        assert tag in (self.tag, 0), f"a reply to {tag}, asked was {self.tag}"
        if isinstance(told, Refused):
            raise told
        return told

    def errno(self, ask, sock=None):
        """The errno of what must be refused, in words; 0 where it is not."""
        try:
            self.ask(ask, sock)
        except Refused as refused:
            assert len(refused.strerror) > 10, refused
            return refused.errno
        return 0

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def mptcp(family=socket.AF_INET):
    return socket.socket(family, socket.SOCK_STREAM, MPTCP)
