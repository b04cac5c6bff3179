#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Looks at the shared object and the archive as a linker would.

usage: elf.py LIBDIR HEADER MAP
"""
import os
import re
import subprocess
import sys

NODE = "MPTCPAPI_0.1"
problems = 0


def check(ok, text):
    global problems
    if not ok:
        problems += 1
        print(text, file=sys.stderr)


def tool(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def main():
    libdir, header, mapfile = sys.argv[1:4]
    so = os.path.join(libdir, "libmptcpapi.so.0")

    # libmptcpapi.so -> .so.0 -> .so.0.x, and the real file at the end.
    link = os.path.join(libdir, "libmptcpapi.so")
    real = os.path.realpath(so)
    check(os.path.islink(link) and os.path.realpath(link) == real, "libmptcpapi.so is no link to .so.0")
    check(os.path.islink(so) and re.fullmatch(r"libmptcpapi\.so\.0\..+", os.path.basename(real)),
          "libmptcpapi.so.0 is no link to .so.0.*")

    dyn = tool("readelf", "-dW", so)
    check("Library soname: [libmptcpapi.so.0]" in dyn, "soname")
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dyn))
    check("libc.so.6" in needed, "libc is not NEEDED")
    extra = {n for n in needed - {"libc.so.6", "libgcc_s.so.1"} if not n.startswith("ld-linux")}
    check(not extra, "NEEDED: %s" % sorted(extra))
    check("TEXTREL" not in dyn, "TEXTREL")
    check("RPATH" not in dyn and "RUNPATH" not in dyn, "RPATH or RUNPATH")
    flags = re.findall(r"\(FLAGS(?:_1)?\)\s*(.*)", dyn)
    check(any("NODELETE" in f for f in flags), "no NODELETE")
    check(any("NOW" in f for f in flags), "no BIND_NOW")
    segments = tool("readelf", "-lW", so)
    check("GNU_RELRO" in segments, "no RELRO")
    stack = re.search(r"GNU_STACK.*", segments)
    check(stack and "E" not in stack.group().split()[-2], "executable stack, or not said")

    exported = {}
    for line in tool("readelf", "--dyn-syms", "-W", so).splitlines():
        w = line.split()
        if len(w) < 8 or not w[0].rstrip(":").isdigit() or w[6] == "UND" or w[4] == "LOCAL":
            continue
        name, _, version = w[7].partition("@")
        exported[name] = (w[3], version.lstrip("@"))
    exported.pop(NODE, None)
    for name, (kind, version) in sorted(exported.items()):
        check(name.startswith("mptcp_"), "exports %s" % name)
        check(kind == "FUNC", "%s is a %s" % (name, kind))
        check(version == NODE, "%s is at %s" % (name, version))
    check("Name: " + NODE in tool("readelf", "-VW", so), "no version node " + NODE)

    with open(header, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    text = re.sub(r"typedef[^;]*\([^;]*;", "", text)
    declared = set(re.findall(r"\b(mptcp_\w+)\s*\(", text))
    check(declared == set(exported), "header and exports differ: %s" % sorted(declared ^ set(exported)))

    with open(mapfile, encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/|#[^\n]*", "", f.read(), flags=re.S)
    check(re.findall(r"(\w[\w.]*)\s*\{", text) == [NODE], "the map has other nodes")
    glob, _, local = text.partition("local:")
    mapped = set(re.findall(r"\b(mptcp_\w+)\s*;", glob))
    check(local.split(";")[0].strip() == "*", "the map does not make the rest local")
    check(mapped == set(exported), "map and exports differ: %s" % sorted(mapped ^ set(exported)))

    archive = set()
    for line in tool("nm", "-g", "--defined-only", os.path.join(libdir, "libmptcpapi.a")).splitlines():
        w = line.split()
        if len(w) == 3:
            archive.add(w[2])
    check(archive == declared, "libmptcpapi.a defines %s" % sorted(archive ^ declared)[:20])
    return problems != 0


if __name__ == "__main__":
    sys.exit(main())
