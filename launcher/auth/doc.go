// Package auth says who is asking, and what proves it.
//
// People and programs are in a [Keyring]: accounts with a shared key, bearer
// tokens, and the users of the launcher's machine, whom the kernel names at the
// other end of a unix socket. Each is a [Principal]: a name that owns jobs, a role,
// and the user who its work is run as on the nodes.
//
// Nodes are known by certificates of the launcher's own [CA]. A node gets its first
// one for a join token ([Enroll]), which also names the CA, so that the very first
// connection is with the right launcher; it renews them by itself ([Identity.Keep]).
//
// Everything is in two files of the launcher's data directory which any process
// of its user may change at any time: each change is made under a lock, written
// whole beside the file and renamed over it, and seen by the other processes with
// their next question. What can't be read lets nobody in.
package auth
