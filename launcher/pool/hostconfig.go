package pool

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	defaultTimeout = 10 * time.Second
	// keepAlive is how often a connection's peer is asked for a sign of life;
	// after two unanswered ones it is given up: 4.5 s at most.
	keepAlive = 1500 * time.Millisecond
)

// strictness is StrictHostKeyChecking.
type strictness int

const (
	strict    strictness = iota // yes and ask: nobody is there to be asked
	acceptNew                   // take and write down unknown keys, refuse changed ones
	lax                         // no, off
)

// hostConfig is all that is known of one host before it is dialed.
type hostConfig struct {
	name      string // as written
	user      string
	host      string // after HostName
	port      int
	keyAlias  string // the name known_hosts is asked for, when not host
	jumps     []destination
	proxyCmd  string
	family    string // tcp, tcp4 or tcp6
	timeout   time.Duration
	alive     time.Duration
	identity  []string // key files in order
	explicit  bool     // identity was configured, so a missing file is worth a word
	only      bool     // IdentitiesOnly
	agent     string   // socket; empty for none
	certs     []string // CertificateFile
	strict    strictness
	userHosts []string // UserKnownHostsFile
	hosts     []string // GlobalKnownHostsFile
	keyAlgos  []string // HostKeyAlgorithms, when a plain list
}

func (h *hostConfig) addr() string { return net.JoinHostPort(h.host, strconv.Itoa(h.port)) }

// knownName is the name under which known_hosts has the host.
func (h *hostConfig) knownName() string {
	if h.keyAlias != "" {
		return net.JoinHostPort(h.keyAlias, "22")
	}
	return net.JoinHostPort(strings.ToLower(h.host), strconv.Itoa(h.port))
}

// label names the host in messages, with the address when that says more.
func (h *hostConfig) label() string {
	if h.host == h.name && h.port == 22 {
		return h.name
	}
	return fmt.Sprintf("%s (%s)", h.name, h.addr())
}

// defaultIdentities are the key files that ssh tries by itself, in its order.
var defaultIdentities = [...]string{"id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"}

// resolve applies the configuration to a destination. What the destination says
// itself wins over the files.
func (r *configReader) resolve(d destination, timeout time.Duration) (*hostConfig, error) {
	list, err := r.settings(d.host)
	if err != nil {
		return nil, err
	}
	h := &hostConfig{name: d.host, host: d.host, user: d.user, port: d.port, family: "tcp", timeout: timeout, alive: keepAlive}
	agent, agentSet := os.Getenv("SSH_AUTH_SOCK"), false
	seen := map[string]bool{}
	proxySet := false
	var wrong error
	for _, s := range list {
		multi := s.key == "identityfile" || s.key == "certificatefile"
		if seen[s.key] && !multi {
			continue
		}
		seen[s.key] = true
		word := first(splitWords(s.value))
		switch s.key { // one path, from which the quotes are gone already
		case "identityfile", "certificatefile", "identityagent":
			word = s.value
		}
		bad := func(err error) {
			if wrong == nil {
				wrong = fmt.Errorf("%s: %s: %v", s.where, s.key, err)
			}
		}
		switch s.key {
		case "hostname":
			h.host = strings.NewReplacer("%%", "%", "%h", d.host, "%n", d.host).Replace(word)
		case "user":
			if h.user == "" {
				h.user = word
			}
		case "port":
			if n, err := parsePort(word); err != nil {
				bad(err)
			} else if h.port == 0 {
				h.port = n
			}
		case "hostkeyalias":
			h.keyAlias = word
		case "proxyjump":
			if proxySet {
				continue
			}
			proxySet = true
			if h.jumps, err = parseJumps(word); err != nil {
				bad(err)
			}
		case "proxycommand":
			if proxySet {
				continue
			}
			proxySet = true
			if !strings.EqualFold(s.value, "none") {
				h.proxyCmd = s.value
			}
		case "addressfamily":
			switch strings.ToLower(word) {
			case "inet":
				h.family = "tcp4"
			case "inet6":
				h.family = "tcp6"
			}
		case "connecttimeout":
			t, err := parseInterval(word)
			if err != nil {
				bad(err)
			} else if t > 0 {
				h.timeout = t
			}
		case "serveraliveinterval":
			// Only a shorter one is taken: a gang must hear of a silent node
			// within seconds, whatever suits a user's terminal.
			t, err := parseInterval(word)
			if err != nil {
				bad(err)
			} else if t > 0 && t < h.alive {
				h.alive = t
			}
		case "identityfile":
			h.explicit = true
			if !strings.EqualFold(word, "none") {
				h.identity = append(h.identity, word)
			}
		case "certificatefile":
			h.certs = append(h.certs, word)
		case "identitiesonly":
			h.only = strings.EqualFold(word, "yes")
		case "identityagent":
			agent, agentSet = word, true
		case "stricthostkeychecking":
			switch strings.ToLower(word) {
			case "accept-new":
				h.strict = acceptNew
			case "no", "off":
				h.strict = lax
			}
		case "userknownhostsfile":
			h.userHosts = splitWords(s.value)
		case "globalknownhostsfile":
			h.hosts = splitWords(s.value)
		case "hostkeyalgorithms":
			if word != "" && !strings.ContainsAny(word[:1], "+-^") {
				h.keyAlgos = strings.Split(word, ",")
			}
		}
	}
	if wrong != nil {
		return nil, wrong
	}
	if h.host == "" {
		return nil, fmt.Errorf("HostName of %s is empty", d.host)
	}
	if h.user == "" {
		h.user = r.user
	}
	if h.port == 0 {
		h.port = 22
	}
	r.paths(h, d)
	if agentSet {
		agent = agentPath(agent)
	}
	if agent != "" {
		h.agent = r.expand(agent, h)
	}
	return h, nil
}

// paths fills in the default files and expands what files are named with.
func (r *configReader) paths(h *hostConfig, d destination) {
	ssh := filepath.Join(r.home, ".ssh")
	if !h.explicit {
		for _, f := range defaultIdentities {
			h.identity = append(h.identity, filepath.Join(ssh, f))
		}
	}
	if h.userHosts == nil {
		h.userHosts = []string{filepath.Join(ssh, "known_hosts"), filepath.Join(ssh, "known_hosts2")}
	}
	if h.hosts == nil {
		h.hosts = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	}
	for _, list := range [][]string{h.identity, h.certs, h.userHosts, h.hosts} {
		for i, f := range list {
			list[i] = r.expand(f, h)
		}
	}
	h.proxyCmd = r.tokens(h.proxyCmd, h)
}

// expand resolves ~, ${NAME} and the % tokens of ssh_config in a path.
func (r *configReader) expand(s string, h *hostConfig) string {
	if s == "~" || strings.HasPrefix(s, "~/") {
		s = r.home + s[1:]
	}
	if before, rest, ok := strings.Cut(s, "${"); ok {
		if name, after, ok := strings.Cut(rest, "}"); ok {
			// A value is not expanded again: a variable may name itself.
			return r.tokens(before, h) + os.Getenv(name) + r.expand(after, h)
		}
	}
	return r.tokens(s, h)
}

func (r *configReader) tokens(s string, h *hostConfig) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return strings.NewReplacer("%%", "%", "%d", r.home, "%h", h.host, "%n", h.name,
		"%p", strconv.Itoa(h.port), "%r", h.user, "%u", r.user).Replace(s)
}

// agentPath reads IdentityAgent: a path, "none", SSH_AUTH_SOCK or $NAME.
func agentPath(s string) string {
	switch {
	case strings.EqualFold(s, "none"):
		return ""
	case s == "SSH_AUTH_SOCK":
		return os.Getenv(s)
	case strings.HasPrefix(s, "$") && !strings.HasPrefix(s, "${"):
		return os.Getenv(s[1:])
	}
	return s
}

// parseInterval reads ssh_config's time format: seconds, or numbers with the
// units s, m, h, d, w in a row ("1m30s"). "none" is 0.
func parseInterval(s string) (time.Duration, error) {
	if strings.EqualFold(s, "none") {
		return 0, nil
	}
	const limit = 365 * 24 * time.Hour
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	bad := fmt.Errorf("%q is no time: write seconds, or as 1m30s, at most a year", s)
	var total time.Duration
	if s == "" {
		return 0, bad
	}
	for rest := s; rest != ""; {
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			digits++
		}
		n, err := strconv.ParseUint(rest[:digits], 10, 32)
		if err != nil {
			return 0, bad
		}
		rest = rest[digits:]
		unit := time.Second
		if rest != "" {
			u, ok := units[rest[0]|0x20]
			if !ok {
				return 0, bad
			}
			unit, rest = u, rest[1:]
		}
		// Both factors are checked so that the product can't overflow.
		if n > uint64(limit/unit) {
			return 0, bad
		}
		if total += time.Duration(n) * unit; total > limit {
			return 0, bad
		}
	}
	return total, nil
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}
