package pool

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// destination is what a user writes for a host: [user@]host[:port], with
// brackets around an IPv6 address that has a port, or ssh://[user@]host[:port].
type destination struct {
	user string
	host string // an alias of ssh_config, a name or an address, without brackets
	port int    // 0 unset
}

func (d destination) String() string {
	s := d.host
	if d.port != 0 {
		s = net.JoinHostPort(d.host, strconv.Itoa(d.port))
	}
	if d.user != "" {
		s = d.user + "@" + s
	}
	return s
}

func parseDestination(s string) (destination, error) {
	var d destination
	bad := func(why string) (destination, error) {
		return destination{}, fmt.Errorf("%q is no destination: %s; write [user@]host[:port]", s, why)
	}
	rest := strings.TrimPrefix(s, "ssh://")
	if rest != s {
		rest = strings.TrimSuffix(rest, "/")
	}
	// The last @, because a user name may hold one (user@domain@host).
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if i == 0 {
			return bad("the user is empty")
		}
		d.user, rest = rest[:i], rest[i+1:]
	}
	port := ""
	switch {
	case strings.HasPrefix(rest, "["):
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return bad("a bracket is not closed")
		}
		after := rest[end+1:]
		d.host = rest[1:end]
		if after != "" {
			if after[0] != ':' {
				return bad("something stands behind the bracket")
			}
			if port = after[1:]; port == "" {
				return bad("the port is empty")
			}
		}
	case strings.Count(rest, ":") == 1:
		d.host, port, _ = strings.Cut(rest, ":")
		if port == "" {
			return bad("the port is empty")
		}
	default: // no colon, or an IPv6 address without port
		d.host = rest
	}
	if port != "" {
		n, err := parsePort(port)
		if err != nil {
			return bad(err.Error())
		}
		d.port = n
	}
	if strings.Contains(d.host, ":") {
		if _, err := netip.ParseAddr(d.host); err != nil {
			return bad("there are colons, but it is no IPv6 address")
		}
	}
	if d.host == "" {
		return bad("the host is empty")
	}
	// A leading dash would become an option where a name is handed to a
	// program (ProxyCommand); blanks and controls are in no name.
	if d.host[0] == '-' || strings.HasPrefix(d.user, "-") {
		return bad("it begins with a dash")
	}
	if strings.Contains(d.user, ",") {
		return bad("a user has a comma; destinations are separated by commas where several are wanted")
	}
	if strings.ContainsFunc(d.host+d.user, func(r rune) bool { return r <= ' ' || r == 0x7f }) ||
		strings.ContainsAny(d.host, "[]/'\"`$;&|<>()\\,") {
		return bad("it holds a character that no host name has")
	}
	return d, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port (1-65535)", s)
	}
	return int(n), nil
}

// parseJumps reads a ProxyJump value: "none", or destinations in the order in
// which they are passed, separated by commas.
func parseJumps(s string) ([]destination, error) {
	if strings.EqualFold(s, "none") || s == "" {
		return nil, nil
	}
	var list []destination
	for part := range strings.SplitSeq(s, ",") {
		d, err := parseDestination(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}
