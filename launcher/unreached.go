package launcher

import (
	"sync"

	"gangway/launcher/batchapi"
)

// unreached is why nodes can't be connected to, the last reason of each, for those
// who look at nodes: the log is not theirs to read. It is not stored: a launcher
// that is started again soon knows anew.
type unreached struct {
	mu  sync.Mutex
	why map[string]string
}

func (u *unreached) failed(node string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.why == nil {
		u.why = map[string]string{}
	}
	u.why[node] = err.Error()
}

// connected forgets a node: there is a session with it, or it is removed.
func (u *unreached) connected(node string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.why, node)
}

// tell adds the reason to a node that is not there.
func (u *unreached) tell(n *batchapi.Node) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if why, ok := u.why[n.ID]; ok && (n.State == "starting" || n.State == "unknown") {
		n.Errors = append(n.Errors, batchapi.Failure{Code: "NodeUnreachable", Message: why})
	}
}
