package nodeagent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"

	"gangway/nodeagent/proc"
)

// account is a user of the node.
type account struct {
	name        string
	cred        proc.Credential
	home, shell string
}

const (
	// askUsers is how long the node's name service may take. The agent waits,
	// so it must stay well below what launchers take for a dead session.
	askUsers = 3 * time.Second
	// accountsFor is how long an answer of it holds.
	accountsFor = time.Minute
)

// accounts remembers the users asked for.
type accounts map[string]remembered

type remembered struct {
	account
	until time.Time
}

var errSwitch = errors.New("the agent is not run by root")

// accountFor returns whom a task of user runs as, nil for the agent's own. It
// refuses what this agent can't become, and root under another name than its own.
func (a *agent) accountFor(name string) (*account, error) {
	own := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(own); err == nil {
		own = u.Username
	}
	if name == "" || name == own {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("the task is to run as %s, the agent runs as %s: %w; start it by root, or submit as %s", name, own, errSwitch, own)
	}
	now := time.Now()
	if r, ok := a.accounts[name]; ok && now.Before(r.until) {
		return &r.account, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askUsers)
	defer cancel()
	acc, err := lookupAccount(ctx, name)
	if err != nil {
		return nil, err
	}
	if acc.cred.UID == 0 {
		return nil, fmt.Errorf("the task is to run as %s, which is root: only tasks of no user or of %s run as root", name, own)
	}
	if a.accounts == nil {
		a.accounts = accounts{}
	}
	a.accounts[name] = remembered{acc, now.Add(accountsFor)}
	return &acc, nil
}

// lookupAccount asks the node's files, then its name service: a cluster's users
// are often in a directory, which only the system's own tools can ask.
func lookupAccount(ctx context.Context, name string) (account, error) {
	if name == "" || len(name) > 256 || strings.HasPrefix(name, "-") || strings.ContainsAny(name, ":/\n\x00 ") {
		return account{}, fmt.Errorf("%q is not a user's name", name)
	}
	if b, err := os.ReadFile("/etc/passwd"); err == nil {
		for line := range strings.Lines(string(b)) {
			if acc, err := parsePasswd(line); err == nil && acc.name == name {
				acc.cred.Groups, err = localGroups(acc)
				return acc, err
			}
		}
	}
	b, err := exec.CommandContext(ctx, "getent", "passwd", name).Output()
	if err != nil {
		return account{}, fmt.Errorf("user %s is not known on this node; create it there, or map the task's owner to another", name)
	}
	acc, err := parsePasswd(string(b))
	// A number finds a user by id: that is not the user of this name.
	if err != nil || acc.name != name {
		return account{}, fmt.Errorf("user %s is not known on this node", name)
	}
	b, err = exec.CommandContext(ctx, "id", "-G", name).Output()
	if err != nil {
		return account{}, fmt.Errorf("the groups of user %s can't be read: %w", name, err)
	}
	for _, f := range bytes.Fields(b) {
		g, err := strconv.ParseUint(string(f), 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("the groups of user %s can't be read: %w", name, err)
		}
		acc.cred.Groups = append(acc.cred.Groups, int(g))
	}
	return acc, nil
}

func localGroups(acc account) ([]int, error) {
	u := &user.User{Username: acc.name, Uid: strconv.Itoa(acc.cred.UID), Gid: strconv.Itoa(acc.cred.GID)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of user %s can't be read: %w", acc.name, err)
	}
	var out []int
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			out = append(out, int(g))
		}
	}
	return out, nil
}

// parsePasswd reads a line of passwd(5).
func parsePasswd(line string) (account, error) {
	f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
	if len(f) != 7 || f[0] == "" {
		return account{}, errors.New("not a line of passwd")
	}
	uid, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: id: %w", f[0], err)
	}
	gid, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return account{}, fmt.Errorf("user %s: group: %w", f[0], err)
	}
	return account{name: f[0], cred: proc.Credential{UID: int(uid), GID: int(gid)}, home: f[5], shell: f[6]}, nil
}

// environ is what a shim of this user begins with: of the agent's environment
// only what says nothing of the agent's own user.
func (acc *account) environ() []string {
	path := "PATH=/usr/local/bin:/usr/bin:/bin"
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "PATH":
			path = kv
		case name == "LANG", name == "TZ", name == "GANGWAY_TMPDIR", strings.HasPrefix(name, "LC_"):
			env = append(env, kv)
		}
	}
	home, shell := acc.home, acc.shell
	if home == "" {
		home = "/"
	}
	if shell == "" {
		shell = "/bin/sh"
	}
	return append(env, path, "HOME="+home, "USER="+acc.name, "LOGNAME="+acc.name, "SHELL="+shell)
}
