package shim

import "gangway/nodeagent/wire"

// Hints for a program that is not there; hinted adds what the kind of job offers.
const (
	hintPath    = "it is not on the node's PATH; give its path"
	hintInstall = "build or install it there"
)

// hinted adds what the job's kind has for a program that is missing: a session's
// client can send its own, a kept job has none that could.
func (s *shim) hinted(f *wire.Failure) *wire.Failure {
	kept := !s.a.GetSession()
	switch {
	case f.GetHint() == hintPath && kept:
		f.Hint += ", or extend PATH with a set-up script"
	case f.GetHint() == hintPath:
		f.Hint += ", copy it with --bcast or extend PATH with --setup"
	case f.GetHint() == hintInstall && kept:
		f.Hint += ", or put it on a file system that the nodes share"
	case f.GetHint() == hintInstall:
		f.Hint += ", or copy it with --bcast"
	}
	return f
}
