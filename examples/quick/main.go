// SPDX-License-Identifier: MIT OR Apache-2.0

// quick SERVER PORT LOCAL LOCAL: one connection over two addresses of this host.
package main

import (
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"time"

	"libmptcpapi/mptcp"
)

func main() {
	// Multipath, from these addresses and no others.
	var dialer mptcp.Dialer
	for _, local := range os.Args[3:] {
		dialer.LocalAddrs = append(dialer.LocalAddrs, netip.AddrPortFrom(netip.MustParseAddr(local), 0))
	}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintln(conn, "hello")

	// The second subflow follows when the first has carried data.
	var paths []mptcp.Subflow
	for i := 0; i < 20 && len(paths) < 2; i++ {
		paths, _ = mptcp.Subflows(conn.(*net.TCPConn))
		time.Sleep(50 * time.Millisecond)
	}
	for _, path := range paths {
		fmt.Println("subflow from", path.Local.Addr())
	}
}
