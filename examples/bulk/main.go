// SPDX-License-Identifier: MIT OR Apache-2.0

// bulk SERVER PORT LOCAL... downloads to standard output by all of these local
// addresses at once, and says on standard error what each path brought. A server
// for it is `server PORT source BYTES`.
package main

import (
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"syscall"

	"libmptcpapi/mptcp"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 4 {
		log.Fatal("usage: bulk SERVER PORT LOCAL...")
	}
	var dialer mptcp.Dialer
	for _, word := range os.Args[3:] {
		local, err := netip.ParseAddr(word)
		if err != nil {
			log.Fatal(err)
		}
		dialer.LocalAddrs = append(dialer.LocalAddrs, netip.AddrPortFrom(local, 0))
	}
	// All paths at once is what a connection does by itself. Where nobody may
	// choose paths for us it is one path, as for everybody else.
	address := net.JoinHostPort(os.Args[1], os.Args[2])
	c, err := dialer.Dial("tcp", address)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		log.Print("by one path: ", err)
		dialer.LocalAddrs = nil
		c, err = dialer.Dial("tcp", address)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	conn := c.(*net.TCPConn)

	for err == nil {
		if _, err = io.CopyN(os.Stdout, conn, 1<<16); err != nil {
			break
		}
		// Without mptcpapid the library acts in calls like this one.
		_, err = mptcp.Subflows(conn)
	}
	if err != io.EOF {
		log.Fatal(err)
	}
	// The stream has ended, but its subflows are there until the socket is closed.
	_, paths, err := mptcp.Stats(conn)
	if err != nil {
		log.Fatal(err)
	}
	for _, path := range paths {
		log.Printf("%v -> %v: %.1f %%", path.Local, path.Remote, float64(path.ShareReceived)/10000)
	}
}
