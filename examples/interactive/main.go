// SPDX-License-Identifier: MIT OR Apache-2.0

// interactive SERVER PORT LOCAL... sends each line of standard input to an echo
// server and says how long the answer took, and by which of these local addresses
// it went: the quickest carries the session, the others stand by.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"libmptcpapi/mptcp"
)

// path tells which path carries data: the one that isn't for backup.
func path(conn *net.TCPConn) string {
	_, paths, err := mptcp.Stats(conn)
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range paths {
		if path.Flags&mptcp.SubflowBackup == 0 {
			return path.Local.String()
		}
	}
	return "none"
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: interactive SERVER PORT LOCAL...")
	}
	var locals []netip.AddrPort
	for _, word := range os.Args[3:] {
		local, err := netip.ParseAddr(word)
		if err != nil {
			log.Fatal(err)
		}
		locals = append(locals, netip.AddrPortFrom(local, 0))
	}
	dialer := mptcp.Dialer{
		LocalAddrs: locals,
		Control: func(network, address string, c syscall.RawConn) error {
			return mptcp.SetProfile(mptcp.Raw(c), mptcp.ProfileInteractive)
		},
	}
	address := net.JoinHostPort(os.Args[1], os.Args[2])
	c, err := dialer.Dial("tcp", address)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		log.Print("by whatever path: ", err)
		c, err = (&mptcp.Dialer{}).Dial("tcp", address)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	conn := c.(*net.TCPConn) // TCP_NODELAY is set, as on all of Go's

	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line := append(in.Bytes(), '\n')
		start := time.Now()
		if _, err := conn.Write(line); err != nil {
			log.Fatal(err)
		}
		if _, err := io.ReadFull(conn, line); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%.1f ms by %s\n", time.Since(start).Seconds()*1000, path(conn))
	}
}
