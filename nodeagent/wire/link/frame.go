// Package link makes connections between gangway's processes: frames on unix
// sockets, mutual TLS from a shared key, and HTTP/2 over any byte stream. What
// is said over them is in package wire.
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"

	"gangway/nodeagent/wire"
)

// ErrFrameSize reports a frame longer than wire.MaxFrame: the peer is not a
// gangway of a version that this one knows.
var ErrFrameSize = errors.New("frame longer than the protocol allows")

// WriteFrame writes f as a 4-byte big-endian length and its encoding, in one
// Write.
func WriteFrame(w io.Writer, f *wire.Frame) error {
	buf := make([]byte, 4, 4+proto.Size(f))
	buf, err := proto.MarshalOptions{}.MarshalAppend(buf, f)
	if err != nil {
		return fmt.Errorf("encoding a frame: %w", err)
	}
	n := len(buf) - 4
	if n > wire.MaxFrame {
		return ErrFrameSize
	}
	binary.BigEndian.PutUint32(buf, uint32(n))
	_, err = w.Write(buf)
	return err
}

// ReadFrame reads one frame. It returns io.EOF only between frames, and
// io.ErrUnexpectedEOF inside one.
func ReadFrame(r io.Reader) (*wire.Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > wire.MaxFrame {
		return nil, ErrFrameSize
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	f := new(wire.Frame)
	if err := proto.Unmarshal(buf, f); err != nil {
		return nil, fmt.Errorf("decoding a frame of %d bytes: %w", n, err)
	}
	return f, nil
}
