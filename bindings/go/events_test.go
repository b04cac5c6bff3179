// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"libmptcpapi/mptcp"
)

func nextEvent(t *testing.T, e *mptcp.Events, want mptcp.EventKind) mptcp.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	event, err := e.Next(ctx)
	if err != nil || event.What != want {
		t.Fatalf("%+v, %v; not %#x", event, err, uint32(want))
	}
	return event
}

func subscribe(t *testing.T, c syscall.Conn, mask mptcp.EventKind) *mptcp.Events {
	t.Helper()
	e, err := mptcp.Subscribe(c, mask)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func testEvents(t *testing.T) {
	list := addrs("10.1.0.1", "10.2.0.1")
	address, accepted := serve(t, "tcp", "10.9.0.1:0")
	all := subscribe(t, nil, mptcp.EventUp|mptcp.EventDown)
	c := dial(t, &mptcp.Dialer{LocalAddrs: list[:1]}, "tcp", address)
	<-accepted
	mustExchange(t, c, 1000)
	id, _ := mptcp.ConnID(c)
	if up := nextEvent(t, all, mptcp.EventUp); up.ConnID != id || up.Origin != mptcp.OriginApp {
		t.Errorf("%+v", up)
	}
	one := subscribe(t, c, mptcp.EventAll|mptcp.EventCurrent)
	up := nextEvent(t, one, mptcp.EventUp)
	if up.Subflow.Local.String() != c.LocalAddr().String() || up.Subflow.Flags&mptcp.SubflowInitial == 0 {
		t.Errorf("%+v", up)
	}
	// A wait that is given up loses nothing.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	if _, err := one.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait that was given up: %v", err)
	}
	cancel()
	if err := mptcp.Add(c, list[1:], mptcp.AddBackup); err != nil {
		t.Fatal(err)
	}
	joined := nextEvent(t, one, mptcp.EventSubflowUp)
	if joined.Subflow.Local.Addr() != list[1].Addr() || joined.Subflow.Flags&mptcp.SubflowBackup == 0 {
		t.Errorf("%+v", joined)
	}
	if err := mptcp.Remove(c, list[1:]); err != nil {
		t.Fatal(err)
	}
	// The rest by the channel, to its end.
	var seen []mptcp.EventKind
	for event := range one.C() {
		seen = append(seen, event.What)
		if event.What == mptcp.EventSubflowDown {
			c.Close()
		}
	}
	if len(seen) != 2 || seen[0] != mptcp.EventSubflowDown || seen[1] != mptcp.EventDown || one.Err() != nil {
		t.Errorf("%x, %v", seen, one.Err())
	}
	if _, err := one.Next(context.Background()); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if down := nextEvent(t, all, mptcp.EventDown); down.ConnID != id {
		t.Errorf("%+v", down)
	}
	// Several who wait and are called off at once.
	for i := 0; i < 50; i++ {
		ctx, cancel := context.WithCancel(context.Background())
		ends := make(chan error)
		for j := 0; j < 4; j++ {
			go func() {
				_, err := all.Next(ctx)
				ends <- err
			}()
		}
		time.Sleep(time.Millisecond)
		cancel()
		for j := 0; j < 4; j++ {
			select {
			case err := <-ends:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("called off: %v", err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("called off, and still waits")
			}
		}
	}
	// Close ends who waits, and the channel.
	waits := make(chan error)
	go func() {
		_, err := all.Next(context.Background())
		waits <- err
	}()
	time.Sleep(5 * time.Millisecond)
	all.Close()
	if err := <-waits; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	for range all.C() {
		t.Error("an event of what is closed")
	}
}

func TestDirectEvents(t *testing.T)    { lab(t, "direct"); testEvents(t) }
func TestUserspaceEvents(t *testing.T) { lab(t, "userspace"); testEvents(t) }

func TestUserEvents(t *testing.T) {
	lab(t, "user")
	_, err := mptcp.Subscribe(nil, mptcp.EventAll)
	isErrno(t, "Subscribe", err, syscall.EPERM)
}

func TestAnyEventsRefused(t *testing.T) {
	lab(t, "any")
	c, err := net.Dial("tcp", servePlain(t, "tcp", "10.9.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = mptcp.Subscribe(c.(*net.TCPConn), mptcp.EventAll)
	var e *mptcp.Error
	if !errors.As(err, &e) || (e.Errno != syscall.EOPNOTSUPP && e.Errno != syscall.EPERM) {
		t.Errorf("plain TCP: %v", err)
	}
}
