//go:build linux

package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

const stateFile = "lab.json"

type savedLab struct {
	Switch savedKeeper `json:"switch"`
	Hosts  []savedHost `json:"hosts"`
}

type savedHost struct {
	Name   string      `json:"name"`
	Addr   netip.Addr  `json:"addr"`
	Keeper savedKeeper `json:"keeper"`
	SSHD   int         `json:"sshd"`
}

type savedKeeper struct {
	PID   int    `json:"pid"`
	Start string `json:"start"`
	IDs   string `json:"pidns"`
}

func (k *keeper) saved() savedKeeper { return savedKeeper{PID: k.pid, Start: k.start, IDs: k.ids} }

func (s savedKeeper) keeper() *keeper { return &keeper{pid: s.PID, start: s.Start, ids: s.IDs} }

func (l *Lab) save() error {
	s := savedLab{Switch: l.sw.saved()}
	for _, h := range l.hosts {
		s.Hosts = append(s.Hosts, savedHost{Name: h.name, Addr: h.addr, Keeper: h.keeper.saved(), SSHD: h.sshd})
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, stateFile), append(b, '\n'), 0o600)
}

// Open finds a lab that was built with Detached, by its directory.
func Open(dir string) (*Lab, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(abs, stateFile))
	if err != nil {
		return nil, fmt.Errorf("no lab in %s: %w", abs, err)
	}
	var s savedLab
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(abs, stateFile), err)
	}
	l := &Lab{dir: abs, sw: s.Switch.keeper()}
	for i, h := range s.Hosts {
		l.hosts = append(l.hosts, &Host{lab: l, index: i, name: h.Name, addr: h.Addr, keeper: h.Keeper.keeper(), sshd: h.SSHD})
	}
	return l, nil
}
