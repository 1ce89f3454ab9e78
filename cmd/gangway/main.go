// Command gangway launches MPI programs and other tasks over machines that its
// user can reach.
package main

import (
	"os"
	"path/filepath"

	"gangway/nodeagent/shim"
	"gangway/nodeagent/wire"
)

func main() {
	// mpirun starts these two once per rank and per node: they must cost next
	// to nothing, so nothing of the command line is set up for them.
	switch filepath.Base(os.Args[0]) {
	case "gangway-rank":
		os.Exit(shim.RankMain(os.Args, os.Environ()))
	case "gangway-rsh":
		os.Exit(shim.RshMain(os.Args))
	}
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case "shim":
			os.Exit(shimMain(shim.Main))
		case wire.SpareArg:
			os.Exit(shimMain(shim.MainSpare))
		}
	}
	os.Exit(execute(os.Args[1:]))
}
