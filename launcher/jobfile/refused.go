package jobfile

import "gangway/topology/yamltree"

// Refused returns the *Errors of a job file that can be read but that a launcher does
// not take: message and hint are about the task of that index, from 0. The error
// names the file's first line if it has no such task.
func Refused(name string, raw []byte, task int, message, hint string) error {
	text, f := clean(raw)
	if f != nil {
		return report(name, text, []yamltree.Fault{*f})
	}
	at := yamltree.Place{Line: 1, Column: 1}
	if root, _ := read(text); root != nil && root.Kind == yamltree.Mapping {
		for _, p := range root.Pairs {
			if p.Key == "tasks" && p.Value.Kind == yamltree.Sequence && task >= 0 && task < len(p.Value.Items) {
				at = p.Value.Items[task].At
			}
		}
	}
	return report(name, text, []yamltree.Fault{{At: at, Message: message, Hint: hint}})
}
