package jobfile

import "gangway/topology/yamltree"

// read returns the file's value and the faults in its structure; the value is
// nil when there is none.
func read(text string) (*yamltree.Node, []yamltree.Fault) {
	docs, faults := yamltree.Read(text, yamltree.Options{
		References: true,
		Explain:    true,
		Files:      "job files",
		Hints: yamltree.Hints{
			Unreadable: "simplify it: plain mappings, lists and values are enough",
			Keys:       "use lists, or an array",
			Merged:     "use defaults, lists, or an array",
			Empty:      "remove the dashes that nothing follows",
			Depth:      "a job file needs at most 5",
			Document:   "a file is one job: put each job into a file of its own",
		},
	})
	if len(docs) == 0 {
		return nil, faults
	}
	return docs[0], faults
}
