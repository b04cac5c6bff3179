#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Compares the header that is shipped with contract/mptcp.h, its contract.

usage: contract.py HEADER [CC]

Every macro, struct, field, type and prototype in HEADER must be the
contract's, and all of them must be there. Comments, order and the names of
parameters are free.
"""
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDED_FUNCTIONS = """setsockopt getsockopt getsubflows freesubflows bindx connectx getladdrs freeladdrs
    getpaddrs freepaddrs getaddrlen socket getcaps errmsg version getconnstats getsubflowstats getallstats
    freeallstats connectbyname opensubflow closesubflow setbackup subscribe nextevent dispatch""".split()
NEEDED_MACROS = re.compile(r"MPTCPAPI_VERSION|TCP_MULTIPATH_|MPTCP_SUBFLOW_|MPTCP_BINDX_|MPTCP_BACKEND_|"
                           r"MPTCP_CONTROL_|MPTCP_CAP_|MPTCP_CS_|MPTCP_SS_|MPTCP_CONN_|MPTCP_CONNECT_|"
                           r"MPTCP_PROFILE_|MPTCP_PATHS_|MPTCP_REDUNDANCY_|MPTCP_OPEN_|MPTCP_EV_|MPTCP_ORIGIN_")
NEEDED_STRUCTS = ["mptcp_subflow", "mptcp_caps", "mptcp_conn_stats", "mptcp_subflow_stats", "mptcp_traffic",
                  "mptcp_path_policy", "mptcp_connect_opts", "mptcp_event"]
QUALIFIERS = {"const", "struct", "unsigned", "signed", "long", "short"}
INCLUDES = {"<stddef.h>", "<stdint.h>", "<sys/types.h>", "<sys/socket.h>"}

problems = []


def problem(text):
    problems.append(text)
    print(text, file=sys.stderr)


def normal(decl):
    """A declaration without its parameter's name: 'const struct mptcp_subflow *'."""
    tokens = re.findall(r"\w+|\*|\[\d*\]", decl)
    tokens = [t for t in tokens if t not in ("extern", "__restrict", "restrict")]
    array = "".join(t for t in tokens if t.startswith("["))
    tokens = [t for t in tokens if not t.startswith("[")]
    words = [t for t in tokens if t != "*" and t not in QUALIFIERS]
    # The last plain word is a name if a type's word stands before it.
    if len(words) > 1 or (words and tokens[-1] == words[-1] and "*" in tokens):
        if tokens[-1] == words[-1]:
            tokens = tokens[:-1]
    if array:
        tokens.append("*")
    # "const" may stand on either side of the type it qualifies.
    text = " ".join("int" if t == "int32_t" else t for t in tokens)
    return re.sub(r"^((?:struct )?\w+) const\b", r"const \1", text)


class Header:
    def __init__(self, path):
        with open(path, encoding="utf-8") as f:
            self.raw = f.read()
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", self.raw, flags=re.S)
        text = text.replace("\\\n", " ")
        self.includes = set(re.findall(r"^\s*#\s*include\s*(\S+)", text, re.M))
        self.macros, self.function_like = {}, []
        for name, params, value in re.findall(r"^\s*#\s*define\s+(\w+)(\([^)]*\))?[ \t]*(.*)$", text, re.M):
            if params:
                self.function_like.append(name)
            else:
                self.macros[name] = value.strip()
        code = re.sub(r"^\s*#.*$", "", text, flags=re.M)
        code = re.sub(r'extern\s+"C"\s*\{', "", code)
        self.structs = {}
        body = r"(typedef\s+)?struct\s+(\w+)\s*\{([^{}]*)\}\s*(\w*)\s*;"
        for _, name, fields, _ in re.findall(body, code):
            self.structs[name] = self.fields(fields)
        code = re.sub(body, "", code)
        self.typedefs = {}
        for decl in re.findall(r"typedef\s+([^;]*);", code):
            m = re.match(r"\s*(.*?)\(\s*\*\s*(\w+)\s*\)\s*\((.*)\)\s*$", decl, re.S)
            if m:
                self.typedefs[m.group(2)] = self.signature(m.group(1), m.group(3))
            elif not re.match(r"struct\s+(\w+)\s+\1\s*$", decl.strip()):
                self.typedefs[decl.split()[-1]] = decl
        code = re.sub(r"typedef\s+[^;]*;", "", code)
        self.functions, self.rest = {}, []
        for decl in code.split(";"):
            decl = " ".join(decl.replace("}", " ").split())
            m = re.match(r"(.*?)(\w+)\s*\((.*)\)$", decl)
            if m:
                self.functions[m.group(2)] = self.signature(m.group(1), m.group(3))
                if "inline" in decl or "static" in decl:
                    self.rest.append(decl)
            elif decl and not re.match(r"struct \w+$", decl):
                self.rest.append(decl)

    @staticmethod
    def signature(result, params):
        return normal(result + " f") + "(" + ", ".join(normal(p) for p in params.split(",")) + ")"

    @staticmethod
    def fields(body):
        out = []
        for decl in body.split(";"):
            decl = " ".join(decl.split())
            if not decl:
                continue
            first, *others = decl.split(",")
            m = re.match(r"(.*?)(\w+)\s*((?:\[\w+\])*)$", first)
            base = m.group(1).strip()
            out.append((re.sub(r"\s*\*\s*", " *", base), m.group(2), m.group(3)))
            for o in others:
                m = re.match(r"\s*(\w+)\s*((?:\[\w+\])*)$", o)
                out.append((base, m.group(1), m.group(2)))
        return out


def layout(header, structs, cc):
    """What the compiler makes of it: {'name.field': (offset, size)}."""
    lines = ['#include "%s"' % os.path.abspath(header), "#include <stdio.h>", "int main(void){"]
    for name, fields in structs.items():
        lines.append('printf("%s 0 %%zu\\n", sizeof(struct %s));' % (name, name))
        for _, field, _ in fields:
            lines.append('printf("%s.%s %%zu %%zu\\n", offsetof(struct %s, %s), sizeof(((struct %s *)0)->%s));'
                         % (name, field, name, field, name, field))
    lines.append("return 0;}")
    with tempfile.TemporaryDirectory() as d:
        src, exe = os.path.join(d, "l.c"), os.path.join(d, "l")
        with open(src, "w", encoding="utf-8") as f:
            f.write("\n".join(lines))
        subprocess.run([cc, "-std=c11", "-o", exe, src], check=True)
        out = subprocess.run([exe], check=True, capture_output=True, text=True).stdout
    return {w[0]: (int(w[1]), int(w[2])) for w in map(str.split, out.splitlines())}


def main():
    path, cc = sys.argv[1], (sys.argv[2:] or ["cc"])[0]
    ours, theirs = Header(path), Header(os.path.join(HERE, "contract", "mptcp.h"))

    # The parser must not be fooled: the contract's own counts are known.
    counts = (len(theirs.structs), len(theirs.functions), len(theirs.typedefs))
    if counts != (8, 26, 1) or len(theirs.macros) != 126:
        problem("contract/mptcp.h reads as %s and %d macros" % (counts, len(theirs.macros)))

    guard = "LIBMPTCPAPI_MPTCP_H"
    if not re.search(r"#ifndef %s\b.*\n#define %s\b" % (guard, guard), ours.raw):
        problem("no header guard " + guard)
    if ours.includes != INCLUDES:
        problem("includes %s" % sorted(ours.includes))
    if "#ifdef __cplusplus" not in ours.raw:
        problem("nothing for C++")
    for name in ours.function_like:
        problem("function-like macro %s" % name)
    for decl in ours.rest:
        problem("neither struct, typedef nor prototype: %s" % decl)
    if re.search(r"\benum\b|\bunion\b|\.\.\.", re.sub(r"/\*.*?\*/", "", ours.raw, flags=re.S)):
        problem("an enum, a union or varargs")

    for name, value in ours.macros.items():
        if name == guard:
            continue
        if re.match(r"MPTCP_EVENT_|MPTCP_PM_", name):
            problem("%s: that prefix is linux/mptcp.h's" % name)
        if name not in theirs.macros:
            problem("macro %s is not in the contract" % name)
            continue
        want = theirs.macros[name]
        if want.startswith('"'):
            if value != want:
                problem("%s is %s, not %s" % (name, value, want))
        elif not re.fullmatch(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*", value):
            problem("%s is no plain literal: %s" % (name, value))
        elif int(value, 0) != int(want, 0):
            problem("%s is %s, not %s" % (name, value, want))
    for kind in ("structs", "functions", "typedefs"):
        got, want = getattr(ours, kind), getattr(theirs, kind)
        for name in got:
            if name not in want:
                problem("%s: %s is not in the contract" % (kind, name))
            elif kind == "structs" and got[name] != want[name]:
                problem("struct %s differs in %s" % (name, sorted(set(got[name]) ^ set(want[name])) or "order"))
            elif got[name] != want[name]:
                problem("%s is %s, not %s" % (name, got[name], want[name]))

    for name in theirs.macros:
        if NEEDED_MACROS.match(name) and name not in ours.macros:
            problem("macro %s is missing" % name)
    for name in NEEDED_STRUCTS:
        if name not in ours.structs:
            problem("struct %s is missing" % name)
    for name in NEEDED_FUNCTIONS:
        if "mptcp_" + name not in ours.functions:
            problem("function mptcp_%s is missing" % name)

    common = {n: f for n, f in ours.structs.items() if n in theirs.structs and f == theirs.structs[n]}
    mine = layout(path, common, cc)
    for key, value in layout(os.path.join(HERE, "contract", "mptcp.h"), common, cc).items():
        if mine[key] != value:
            problem("%s is at/of %s, not %s" % (key, mine[key], value))

    missing = [n for n in theirs.functions if n not in ours.functions]
    if missing and not problems:
        print("not there yet: " + " ".join(missing))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
