// Package wire is the language between launcher, agent and shim: generated
// messages, the protocol's version, and the limits both sides hold to. It is
// pure: connections are in wire/link, the generated service in
// wire/wireconnect.
package wire

// Version is the protocol's version, sent in Hello and Welcome. Two sides work
// together when both lie in [OldestVersion, Version] of the other.
//
// History:
//
//	1  2026-11-23  first: sessions, assignments by range, gangs with a mesh
//	2  2026-11-23  kept tasks: output in files, the file service, the task's user;
//	               Gone answers Goodbye; usage samples; retention of task directories;
//	               unread results; the jobs' folders in inventories;
//	               an idle agent of another version is renewed; GPUs are looked at when asked;
//	               preflight, ranks dealt in rounds, autopsies
//	3  2026-11-23  crews: elements of arrays given ahead, results in blocks
const Version = 3

// CrewVersion is the first protocol with crews.
const CrewVersion = 3

// OldestVersion is the oldest protocol that this build still speaks. Of a
// peer before 2 a goodbye would never be confirmed.
const OldestVersion = 2

// MaxFrame is the longest encoded Frame in bytes that a side accepts.
const MaxFrame = 16 << 20

// IDLimit is the longest assignment id in bytes. It is short because it is part
// of a unix socket's path, which Linux limits to 107 bytes.
const IDLimit = 24

// A shim that was started before it had work shows SpareArg for its first
// argument and SpareMark in its environment; with its first frame both become
// what those of every shim are. SpareMark has room for an id of IDLimit bytes.
const (
	SpareArg  = "spare"
	SpareMark = "GANGWAY_SPARE=....................."
)

// Speaks reports whether this build can work with a peer of the given version.
func Speaks(peer uint32) bool {
	return peer >= OldestVersion && peer <= Version
}

// MPIRunRank stands for mpirun itself, or for the primary command, where a
// message names a rank.
const MPIRunRank = -1

// SharedDir is, in a task root, the directory that all tasks of the node share:
// Azure Batch's name.
const SharedDir = "shared"

// Limits of one FileRequest.
const (
	FileReadLimit = 1 << 20 // bytes
	FileListLimit = 10_000  // entries
)
