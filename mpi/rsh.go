package mpi

import (
	"fmt"
	"strings"
)

// ParseRsh reads the arguments (without argv[0]) with which a launcher calls
// its remote shell: [options] HOST words…. The command is the words joined by
// blanks, to be run by sh -c on the host, as rsh and ssh do: launchers quote
// for that (Hydra's proxy path stands in literal double quotes, orted's
// arguments hold backslashes and semicolons).
//
// Options are those of ssh and rsh; all are ignored, for the channel is the
// gang's own. Options that take a value are known by ssh's manual.
func ParseRsh(argv []string) (host, command string, err error) {
	const withValue = "BbcDEeFIiJLlmOoPpQRSWw"
	i := 0
	for ; i < len(argv); i++ {
		a := argv[i]
		if a == "--" {
			i++
			break
		}
		if len(a) < 2 || a[0] != '-' {
			break
		}
		// "-xq" is a cluster of flags; the first letter that takes a value
		// takes the rest of the word or, at its end, the next word.
		for j := 1; j < len(a); j++ {
			if strings.IndexByte(withValue, a[j]) >= 0 {
				if j == len(a)-1 {
					i++
				}
				break
			}
		}
	}
	if i >= len(argv) || argv[i] == "" {
		return "", "", fmt.Errorf("remote shell called without a host: %q", argv)
	}
	host = argv[i]
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:] // the user is the gang's, whatever was asked
	}
	if host == "" {
		return "", "", fmt.Errorf("remote shell called with an empty host: %q", argv)
	}
	command = strings.Join(argv[i+1:], " ")
	if strings.TrimSpace(command) == "" {
		return "", "", fmt.Errorf("remote shell called without a command for %s: interactive sessions are not offered", host)
	}
	return host, command, nil
}
