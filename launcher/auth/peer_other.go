//go:build !linux

package auth

import (
	"errors"
	"fmt"
	"net"
)

// PeerUID returns the user at the other end of a unix socket, as the kernel
// knows it; here always an error.
func PeerUID(net.Conn) (int, error) {
	return -1, fmt.Errorf("peer credentials: %w", errors.ErrUnsupported)
}
