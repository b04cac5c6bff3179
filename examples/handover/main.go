// SPDX-License-Identifier: MIT OR Apache-2.0

// handover SERVER PORT LOCAL LOCAL uploads standard input by one of two local
// addresses, with the other as a spare that takes over when the first fails, and
// says on standard error what becomes of the paths. `server PORT sink` is a
// server for it.
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

// watch tells what becomes of the paths, until the connection ends.
func watch(events *mptcp.Events) {
	for event := range events.C() {
		local := event.Subflow.Local
		switch event.What {
		case mptcp.EventSubflowDown:
			log.Printf("%v: gone", local)
		case mptcp.EventUp, mptcp.EventSubflowUp, mptcp.EventPriority:
			use := "in use"
			if event.Subflow.Flags&mptcp.SubflowBackup != 0 {
				use = "spare"
			}
			log.Printf("%v: %s", local, use)
		}
	}
	if err := events.Err(); err != nil {
		log.Print("unwatched: ", err)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("usage: handover SERVER PORT LOCAL LOCAL")
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
			if err := mptcp.SetProfile(mptcp.Raw(c), mptcp.ProfileHandover); err != nil {
				return err
			}
			events, err := mptcp.Subscribe(mptcp.Raw(c), mptcp.EventAll)
			if err == nil {
				go watch(events)
			}
			return err
		},
	}
	address := net.JoinHostPort(os.Args[1], os.Args[2])
	c, err := dialer.Dial("tcp", address)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		log.Print("without a spare: ", err)
		c, err = (&mptcp.Dialer{}).Dial("tcp", address)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	conn := c.(*net.TCPConn)

	if _, err := io.Copy(conn, os.Stdin); err != nil {
		log.Fatal(err)
	}
	// Until the server has it all, and says so by closing.
	if err := conn.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		log.Fatal(err)
	}
}
