// Package state is the cluster as data. Events go in through Cluster.Apply, one
// at a time; rows for the store and wishes for the nodes come out. It has no
// clock, randomness or I/O: an event brings its time and its random bytes.
//
// # The life of an attempt
//
// Placed reserves every slot of an attempt at once. From then on Desired names
// its part on each of its nodes with PhasePrepare. The nodes answer with
// ShimReady; when the last one has, the parts turn to PhaseLaunch and name all
// peers. ShimStarted marks the first process. A part that can't be prepared, is
// refused, fails or is cancelled turns the parts that have no result yet to
// PhaseEnd. A node's final record comes as AttemptResult; once it is applied
// (and, by control's rule, committed) the part turns to PhaseForget, which lets
// the shim go. ShimGone removes the part from Desired and frees its slots, and
// nothing else does but NodeGone, the proof that nothing can be left. When the
// last part is gone the attempt has ended.
//
// The outcome of a gang is the primary's result; only when the primary will
// never have one is it the first failure that was seen. The outcome may be
// known before the attempt has ended: the task is completed, the slots are not
// yet free.
//
// What an attempt leaves open is tried again under a new number: after an exit
// other than 0 while retries are left, after a refusal, and, as on-node-loss
// says, after the loss of a node; then only once the old attempt has ended.
//
// # Rows
//
// Change.Rows, put into a store and loaded, give the same Cluster: rows are the
// truth. Apply changes nothing when it returns an error.
package state
