// SPDX-License-Identifier: MIT OR Apache-2.0

// client SERVER PORT BYTES LOCAL... sends random bytes to an echo server from
// these local addresses and no others, and checks what comes back. "add ADDRESS"
// and "remove ADDRESS", lines on standard input, change the addresses meanwhile.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"libmptcpapi/mptcp"
)

// obey changes the connection's addresses as standard input says.
func obey(conn *net.TCPConn) {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, word, _ := strings.Cut(in.Text(), " ")
		address, err := netip.ParseAddr(word)
		list := []netip.AddrPort{netip.AddrPortFrom(address, 0)}
		switch {
		case err != nil:
		case verb == "add":
			err = mptcp.Add(conn, list, 0)
		case verb == "remove":
			err = mptcp.Remove(conn, list)
		}
		if err != nil {
			log.Print(err)
		}
	}
}

// listSubflows lists the subflows if their number has changed.
func listSubflows(conn *net.TCPConn, before int) int {
	paths, err := mptcp.Subflows(conn)
	if err != nil {
		log.Fatal(err)
	}
	for i, path := range paths {
		if len(paths) != before {
			fmt.Printf("subflow %d of %d: %v -> %v\n", i+1, len(paths), path.Local, path.Remote)
		}
	}
	return len(paths)
}

func main() {
	if len(os.Args) < 5 {
		log.Fatal("usage: client SERVER PORT BYTES LOCAL...")
	}
	count, err := strconv.ParseInt(os.Args[3], 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	var dialer mptcp.Dialer
	for _, local := range os.Args[4:] {
		dialer.LocalAddrs = append(dialer.LocalAddrs, netip.AddrPortFrom(netip.MustParseAddr(local), 0))
	}
	c, err := dialer.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	conn := c.(*net.TCPConn)
	go obey(conn)

	sent, back := sha256.New(), sha256.New()
	go func() {
		if _, err := io.CopyN(io.MultiWriter(sent, conn), rand.Reader, count); err != nil {
			log.Fatal(err)
		}
	}()
	data := make([]byte, 1<<16)
	for missing, paths := count, 0; missing > 0; {
		paths = listSubflows(conn, paths)
		n, err := conn.Read(data)
		if err != nil {
			log.Fatal(err)
		}
		back.Write(data[:n])
		missing -= int64(n)
	}
	listSubflows(conn, 0)
	conn.Close()
	fmt.Printf("sent     sha256 %x\nreceived sha256 %x\n", sent.Sum(nil), back.Sum(nil))
	if !bytes.Equal(sent.Sum(nil), back.Sum(nil)) {
		os.Exit(1)
	}
}
