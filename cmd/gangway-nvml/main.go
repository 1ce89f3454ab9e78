// Command gangway-nvml asks NVIDIA's management library (NVML) for this node's GPUs,
// prints one JSON document (gpu.Document) and ends. gangway runs it where there
// are NVIDIA GPUs and kills it when it hangs. Its exit status is 0 whenever it
// has printed a document; one that says why nothing is known is one too.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"gangway/gpu"
	"gangway/gpu/nvml"
)

// version is set by the build.
var version = "unknown"

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "gangway-nvml: it takes no arguments; it prints this node's NVIDIA GPUs as JSON")
		os.Exit(2)
	}
	d := nvml.Live()
	d.Schema, d.Version = gpu.DocumentSchema, version
	if err := json.NewEncoder(os.Stdout).Encode(d); err != nil {
		fmt.Fprintln(os.Stderr, "gangway-nvml: writing the document:", err)
		os.Exit(1)
	}
}
