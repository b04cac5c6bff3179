// SPDX-License-Identifier: MIT OR Apache-2.0

// log PORT: an echo server that says on standard output which subflows its
// connections have, when they come and when they go.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"libmptcpapi/mptcp"
)

var words = map[mptcp.EventKind]string{
	mptcp.EventUp:          "up",
	mptcp.EventDown:        "down",
	mptcp.EventSubflowUp:   "subflow up",
	mptcp.EventSubflowDown: "subflow down",
	mptcp.EventFallback:    "plain TCP from now on",
	mptcp.EventOverflow:    "events were lost",
}

// line logs one event.
func line(event mptcp.Event) {
	word, ok := words[event.What]
	if !ok {
		return
	}
	path, why := "", ""
	if event.Subflow.Local.IsValid() {
		path = fmt.Sprintf(" %v <- %v", event.Subflow.Local, event.Subflow.Remote)
	}
	if event.Err != 0 {
		why = ": " + event.Err.Error()
	}
	fmt.Printf("%s %08x %s%s%s\n", time.Now().UTC().Format(time.RFC3339), event.ConnID, word, path, why)
}

// watch logs what happens to all that the listener accepts, until it is closed.
func watch(listener *net.TCPListener, events *mptcp.Events) {
	for {
		for event := range events.C() {
			line(event)
		}
		err := events.Err()
		events.Close()
		// The broker was restarted: those that come from now on are told of.
		for err != nil {
			log.Print("events: ", err)
			time.Sleep(time.Second)
			events, err = mptcp.Subscribe(listener, mptcp.EventAll)
		}
	}
}

// echo gives back what comes.
func echo(client net.Conn) {
	defer client.Close()
	if _, err := io.Copy(client, client); err != nil {
		log.Print(err)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: log PORT")
	}
	listener, err := (&mptcp.ListenConfig{}).Listen(context.Background(), "tcp4", ":"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	events, err := mptcp.Subscribe(listener, mptcp.EventAll)
	if err != nil {
		log.Fatal(err)
	}
	go watch(listener, events)
	fmt.Println("listening on port", os.Args[1])
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go echo(client)
	}
}
