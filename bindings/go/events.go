// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"libmptcpapi/mptcp/internal/capi"
)

// EventKind is what happened, and with others a mask for Subscribe.
type EventKind uint32

const (
	EventSubflowUp     EventKind = capi.EvSubflowUp     // a further subflow is established
	EventSubflowDown   EventKind = capi.EvSubflowDown   // one was closed, refused or given up
	EventPriority      EventKind = capi.EvPriority      // one is for backup, or no more
	EventPeerAddr      EventKind = capi.EvPeerAddr      // the peer announced an address
	EventPeerAddrGone  EventKind = capi.EvPeerAddrGone  // the peer withdrew one
	EventFallback      EventKind = capi.EvFallback      // the connection is plain TCP now
	EventUp            EventKind = capi.EvUp            // a connection is established
	EventDown          EventKind = capi.EvDown          // a connection ended: its last event
	EventRequestFailed EventKind = capi.EvRequestFailed // what was accepted can't be done (yet)
	EventOverflow      EventKind = capi.EvOverflow      // events were lost here: look again

	// EventAll is every event, those of later versions included.
	EventAll EventKind = capi.EvAll
	// EventCurrent asks to be told first of what is there, as EventUp and
	// EventSubflowUp.
	EventCurrent EventKind = capi.EvCurrent
)

// Origin is who was the cause of an event.
type Origin uint32

const (
	OriginUnknown Origin = capi.OriginUnknown // it can't be told
	OriginApp     Origin = capi.OriginApp     // a call of this interface
	OriginPolicy  Origin = capi.OriginPolicy  // the library, the broker or the kernel, by itself
	OriginPeer    Origin = capi.OriginPeer    // the other end
	OriginNetwork Origin = capi.OriginNetwork // the network, or the loss of an address
)

// Event is something that happened to a connection.
type Event struct {
	What        EventKind      // one of the constants; others are to be skipped
	ConnID      uint32         // as ConnID; 0 with EventOverflow
	Time        time.Duration  // CLOCK_MONOTONIC when it was noticed
	Subflow     Subflow        // zero where there is none; EventUp: the initial one
	Addr        netip.AddrPort // EventPeerAddr, EventPeerAddrGone: which, if known
	AddrID      uint8          // the peer's number of Addr
	Err         syscall.Errno  // why something failed, 0 if it did not
	ResetReason uint32         // why the peer reset the subflow (RFC 8684 3.6), 0 not known
	IfIndex     int            // interface, 0 not known
	Origin      Origin         // who was the cause
	Lost        uint32         // EventOverflow: how many, 0 not known
}

// Events are those of a subscription. Its methods may be called from any
// goroutine; each event goes to one of them.
//
// Where the process acts itself (the direct backend), waiting for events also
// does what there is to do: further subflows are made at once.
type Events struct {
	file *os.File
	raw  syscall.RawConn

	once    sync.Once
	channel chan Event
	stop    chan struct{}
	mu      sync.Mutex
	err     error
	closed  bool
	leaving int // calls of Next whose context is over
}

// Subscribe tells of what happens to a connection, or to a socket still to be
// connected (see Raw); of a listener: to every connection accepted from then
// on. Without a connection (nil) it tells of all that this process has made
// known to the library.
//
// EPERM: nobody may act for this process. EOPNOTSUPP: plain TCP. ENOTCONN: the
// connection ended. EDQUOT: the broker's policy. EIO: the broker went away.
func Subscribe(c syscall.Conn, events EventKind) (*Events, error) {
	evfd := -1
	subscribe := func(fd int) (f *capi.Failure) {
		evfd, f = capi.Subscribe(fd, uint32(events))
		return f
	}
	var err error
	if c == nil {
		err = wrap("subscribe", subscribe(-1))
	} else {
		err = control("subscribe", c, subscribe)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(evfd), "mptcp events")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Events{file: file, raw: raw, channel: make(chan Event), stop: make(chan struct{})}, nil
}

// Close ends the subscription and what waits for it.
func (e *Events) Close() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.stop)
	}
	e.mu.Unlock()
	return e.file.Close()
}

func (e *Events) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// leave ends what waits in Next as long as there is one whose context is over:
// they all wait for one descriptor.
func (e *Events) leave(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving += n
	if e.leaving > 0 {
		e.file.SetReadDeadline(time.Unix(1, 0))
	} else {
		e.file.SetReadDeadline(time.Time{})
	}
}

// Next waits for the next event. io.EOF: nothing will follow. EIO, once: the
// broker has gone; subscribe again, with EventCurrent. os.ErrClosed: closed.
func (e *Events) Next(ctx context.Context) (Event, error) {
	if done := ctx.Done(); done != nil {
		over, ended, left := make(chan struct{}), make(chan struct{}), false
		go func() {
			defer close(ended)
			select {
			case <-done:
				left = true
				e.leave(1)
			case <-over:
			}
		}()
		defer func() {
			close(over)
			if <-ended; left {
				e.leave(-1)
			}
		}()
	}
	for {
		var event capi.Event
		var more bool
		var fail *capi.Failure
		err := e.raw.Read(func(fd uintptr) bool {
			event, more, fail = capi.NextEvent(int(fd))
			return fail == nil || fail.Errno != syscall.EAGAIN
		})
		switch {
		case err != nil && ctx.Err() != nil:
			return Event{}, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // another's, who has given up
		case err != nil && e.isClosed():
			return Event{}, os.ErrClosed
		case err != nil:
			return Event{}, err
		case fail != nil:
			return Event{}, wrap("event", fail)
		case !more:
			return Event{}, io.EOF
		}
		return newEvent(&event), nil
	}
}

// C is a channel of the events, closed when nothing will follow or the
// subscription is closed; Err then says why. Use it or Next, not both.
func (e *Events) C() <-chan Event {
	e.once.Do(func() { go e.run() })
	return e.channel
}

func (e *Events) run() {
	defer close(e.channel)
	for {
		event, err := e.Next(context.Background())
		if err != nil {
			if err != io.EOF && !errors.Is(err, os.ErrClosed) {
				e.mu.Lock()
				e.err = err
				e.mu.Unlock()
			}
			return
		}
		select {
		case e.channel <- event:
		case <-e.stop:
			return
		}
	}
}

// Err is why the channel was closed: nil at the end of the connection and after
// Close.
func (e *Events) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func newEvent(e *capi.Event) Event {
	event := Event{
		What:        EventKind(e.What),
		ConnID:      e.ConnID,
		Time:        time.Duration(e.TimeNS),
		AddrID:      uint8(e.AddrID),
		Err:         syscall.Errno(e.Error),
		ResetReason: e.ResetReason,
		IfIndex:     int(e.IfIndex),
		Origin:      Origin(e.Origin),
		Lost:        e.Lost,
	}
	switch remote, _ := unpack(e.Subflow.Remote[:]); event.What {
	case EventPeerAddr, EventPeerAddrGone:
		event.Addr = remote
	default:
		event.Subflow = newSubflow(&e.Subflow)
	}
	return event
}
