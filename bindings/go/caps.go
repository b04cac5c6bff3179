// SPDX-License-Identifier: MIT OR Apache-2.0

//go:build linux

package mptcp

import (
	"syscall"

	"libmptcpapi/mptcp/internal/capi"
)

// CapFlags are things that may work or not.
type CapFlags uint64

const (
	CapEnable       CapFlags = capi.CapEnable       // MPTCP sockets can be made
	CapSubflows     CapFlags = capi.CapSubflows     // Subflows
	CapConnID       CapFlags = capi.CapConnID       // ConnID
	CapConnStats    CapFlags = capi.CapConnStats    // statistics of a connection
	CapSubflowStats CapFlags = capi.CapSubflowStats // statistics of a subflow
	CapAddBefore    CapFlags = capi.CapAddBefore    // lists before a connection is made
	CapAddLive      CapFlags = capi.CapAddLive      // Add and Remove on a connection
	CapCloseSubflow CapFlags = capi.CapCloseSubflow // closing a subflow
	CapListen       CapFlags = capi.CapListen       // lists on listeners
	CapBackup       CapFlags = capi.CapBackup       // backup subflows
	CapProfile      CapFlags = capi.CapProfile      // profiles
	CapRedundancy   CapFlags = capi.CapRedundancy   // redundant sending
	CapFateSharing  CapFlags = capi.CapFateSharing  // fate sharing
	CapEvents       CapFlags = capi.CapEvents       // events
	CapLateBind     CapFlags = capi.CapLateBind     // bind(2) still works after Add (Linux 6.8)
)

// Backend is who changes the paths of a connection for this process.
type Backend uint32

const (
	BackendNone   Backend = capi.BackendNone   // nobody: Caps.BackendErrno and Caps.Reason say why
	BackendBroker Backend = capi.BackendBroker // mptcpapid
	BackendDirect Backend = capi.BackendDirect // the process itself, with CAP_NET_ADMIN
)

func (b Backend) String() string {
	switch b {
	case BackendNone:
		return "none"
	case BackendBroker:
		return "broker"
	case BackendDirect:
		return "direct"
	}
	return "unknown"
}

// PathControl is who has the paths of a connection.
type PathControl uint32

const (
	ControlUnknown    PathControl = capi.ControlUnknown
	ControlKernel     PathControl = capi.ControlKernel     // the in-kernel path manager
	ControlConnection PathControl = capi.ControlConnection // this library, for each connection
)

// Caps is what works.
type Caps struct {
	Works, Known CapFlags      // what works now; what the library can tell
	Backend      Backend       // who acts
	BackendErrno syscall.Errno // why nobody better; 0: nothing is missing
	Control      PathControl
	Library      uint32 // version of the library loaded, 0xMMmmpp
	SubflowsMax  int    // the first included; 0: not known
	AddrsMax     int    // longest list
	Reason       string // the same in words
}

// Has reports whether all of f work.
func (c Caps) Has(f CapFlags) bool { return c.Works&f == f }

// Capabilities tells what works on a connection or socket, or with nil on this
// host. It changes nothing, and holds for the next call, not for ever.
func Capabilities(c syscall.Conn) (Caps, error) {
	var caps capi.Caps
	get := func(fd int) (f *capi.Failure) {
		caps, f = capi.GetCaps(fd)
		return f
	}
	var err error
	if c == nil {
		err = wrap("capabilities", get(-1))
	} else {
		err = control("capabilities", c, get)
	}
	if err != nil {
		return Caps{}, err
	}
	return Caps{
		Works:        CapFlags(caps.Works),
		Known:        CapFlags(caps.Known),
		Backend:      Backend(caps.Backend),
		BackendErrno: syscall.Errno(caps.BackendErrno),
		Control:      PathControl(caps.Control),
		Library:      caps.Library,
		SubflowsMax:  int(caps.SubflowsMax),
		AddrsMax:     int(caps.AddrsMax),
		Reason:       caps.Reason,
	}, nil
}
