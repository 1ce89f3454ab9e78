package agents

// renew says whether an agent of the version is to give way when nobody uses it. It
// is told once for each version to an agent that a bridge starts: where the program
// on the node is another than the launcher's, its successor is no newer. One that
// joins looks itself whether there is another program.
func (f *Fleet) renew(n *node, version string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cfg.Version == "" || version == f.cfg.Version || n.kept && version == n.renewed {
		return false
	}
	n.renewed = version
	return true
}
