package auth

import (
	"errors"
	"fmt"
	"strings"
)

// ErrDenied is in every error that means "you may not": the asker is unknown, or
// known and refused. Other errors mean that the launcher could not tell.
var ErrDenied = errors.New("access denied")

// denied is an ErrDenied with the reason as its text.
type denied string

func (d denied) Error() string        { return string(d) }
func (d denied) Is(target error) bool { return target == ErrDenied }

func deny(format string, args ...any) error { return denied(fmt.Sprintf(format, args...)) }

// Role is what a principal may do. Each may what those before it may.
type Role int

// The roles. The zero Role may nothing.
const (
	Reader    Role = iota + 1 // see its own jobs
	Submitter                 // and submit and change them
	Admin                     // everything, also other principals' jobs
)

// ParseRole reads a role as String writes it.
func ParseRole(s string) (Role, error) {
	for _, r := range []Role{Reader, Submitter, Admin} {
		if s == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("role %q is not reader, submitter or admin", s)
}

// String returns "reader", "submitter", "admin", or "none".
func (r Role) String() string {
	switch r {
	case Reader:
		return "reader"
	case Submitter:
		return "submitter"
	case Admin:
		return "admin"
	}
	return "none"
}

// MarshalText is String; a role that is none is an error.
func (r Role) MarshalText() ([]byte, error) {
	if r < Reader || r > Admin {
		return nil, fmt.Errorf("role %d does not exist", int(r))
	}
	return []byte(r.String()), nil
}

// UnmarshalText is ParseRole.
func (r *Role) UnmarshalText(text []byte) error {
	v, err := ParseRole(string(text))
	if err == nil {
		*r = v
	}
	return err
}

// Allows tells whether r may what want may. A role that does not exist may nothing
// and is never enough.
func (r Role) Allows(want Role) bool {
	return Reader <= want && want <= r && r <= Admin
}

// Principal is who asks. Credentials of the same Name are the same owner of jobs:
// a token named as a local user sees that user's jobs, which is why only an
// administrator makes tokens.
type Principal struct {
	Name     string
	Role     Role
	NodeUser string // runs its work on the nodes; empty: the agent's own user
}

// May tells whether p may do what role may, on something that owner owns.
func (p Principal) May(role Role, owner string) bool {
	return p.Role.Allows(role) && (p.Role == Admin || p.Name == owner && owner != "")
}

// check returns an error if p can't be a principal.
func (p Principal) check() error {
	if err := checkLogin(p.Name); err != nil {
		return fmt.Errorf("name %w", err)
	}
	if p.Role < Reader || p.Role > Admin {
		return fmt.Errorf("%s has no role: reader, submitter or admin", p.Name)
	}
	if p.NodeUser == "" {
		return nil
	}
	if err := checkLogin(p.NodeUser); err != nil {
		return fmt.Errorf("node user %w", err)
	}
	if p.NodeUser == "root" && p.Role != Admin {
		return fmt.Errorf("%s is a %s and can't be root on the nodes: name another node user", p.Name, p.Role)
	}
	return nil
}

// checkOwner returns an error if a new credential of p would be root without being
// an administrator's: of its name are root's own jobs, whose tasks run as root.
func (p Principal) checkOwner() error {
	if p.Name == "root" && p.Role < Admin {
		return fmt.Errorf("root is a %s: what is named root shares root's jobs; choose another name, or make it an admin", p.Role)
	}
	return nil
}

// checkLogin returns an error unless s can be a user's name: 1…128 bytes, printable,
// without spaces and what separates fields in a passwd file, a hostlist or a path,
// and not starting with "-", which commands would take for a flag. Names of
// directory services (DOMAIN\user, user@realm, machine$) pass.
func checkLogin(s string) error {
	bad := strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == 0xfffd || strings.ContainsRune(":,/'\"`", r) })
	if s == "" || len(s) > 128 || s[0] == '-' || s == "." || s == ".." || bad {
		return fmt.Errorf("%q is not a user's name", s)
	}
	return nil
}
