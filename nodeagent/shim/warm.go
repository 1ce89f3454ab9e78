package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"runtime"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/mpi/preflight"
	"gangway/nodeagent/mesh"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
)

// warmUp uses what every attempt uses for the first time, so that the attempt
// does not pay for tables, probes of the network stack and pages of the program.
func warmUp() error {
	// Each page of the program that is touched for the first time is a fault.
	// Where the kernel can't map them beforehand, they are mapped as they come.
	_ = proc.MapProgram()
	if err := warmFrames(); err != nil {
		return err
	}
	// The checks' tables are built for the types, whatever the values.
	b, err := json.Marshal(preflightMsg{Ask: &preflightAsk{}, Facts: &preflight.Facts{Sent: time.Now()}})
	if err == nil {
		err = json.Unmarshal(b, &preflightMsg{})
	}
	if err != nil {
		return err
	}
	crc32.MakeTable(crc32.Castagnoli) // the spool's
	if err := warmMesh(); err != nil {
		return err
	}
	touchHeap(spareHeap)
	// What the rehearsal leaves is room for the attempt.
	runtime.GC()
	return nil
}

// spareHeap is more than an attempt allocates between its first frame and its end,
// and less than what the Go runtime keeps of a heap that is small.
const spareHeap = 3 << 20

// touchHeap lets the heap grow by n bytes whose pages are there: each that is
// touched for the first time is a fault.
func touchHeap(n int) {
	const piece = 32 << 10
	var all [][]byte
	for ; n > 0; n -= piece {
		b := make([]byte, piece)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
	}
	runtime.KeepAlive(all)
}

// warmFrames builds the tables of the messages and sends some through a
// connection like the agent's.
func warmFrames() error {
	for _, m := range []proto.Message{
		&wire.Frame{}, &wire.ShimStart{}, &wire.Assignment{}, &wire.AttemptName{}, &wire.Range{}, &wire.ShimState{},
		&wire.ToShim{}, &wire.Launch{}, &wire.Peer{}, &wire.Lease{}, &wire.End{}, &wire.Forget{}, &wire.OutputAck{}, &wire.Stdin{},
		&wire.FromShim{}, &wire.Ready{}, &wire.RankPlace{}, &wire.LaunchPlan{}, &wire.Started{}, &wire.Output{}, &wire.StdinCredit{},
		&wire.Notice{}, &wire.Result{}, &wire.RankExit{}, &wire.Failure{},
	} {
		if _, err := proto.Marshal(m); err != nil {
			return err
		}
	}
	ours, f, err := proc.SocketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	theirs, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return err
	}
	defer theirs.Close()
	for _, m := range []*wire.Frame{
		{M: &wire.Frame_Start{Start: &wire.ShimStart{Assignment: &wire.Assignment{Name: &wire.AttemptName{Range: &wire.Range{}}}}}},
		{M: &wire.Frame_To{To: &wire.ToShim{M: &wire.ToShim_Launch{Launch: &wire.Launch{Peers: []*wire.Peer{{}}}}}}},
		{M: &wire.Frame_From{From: &wire.FromShim{M: &wire.FromShim_Result{Result: &wire.Result{Ranks: []*wire.RankExit{{}}}}}}},
	} {
		if err := link.WriteFrame(ours, m); err != nil {
			return err
		}
		if _, err := link.ReadFrame(theirs); err != nil {
			return err
		}
	}
	return nil
}

// warmLimit is more than enough for two members that are one process.
const warmLimit = 10 * time.Second

// warmMesh is a gang of two in this process, which meets and parts. A host that
// does not let it, without a loopback interface say, warms up without it.
func warmMesh() error {
	key := link.NewKey()
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var both [2]*mesh.Mesh
	peers := make([]mesh.Peer, len(both))
	for i := range both {
		m, err := mesh.Listen(local, key, i)
		if err != nil {
			return nil
		}
		defer m.Close()
		both[i], peers[i] = m, mesh.Peer{Index: i, Addr: local, Port: m.Port()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), warmLimit)
	defer cancel()
	heard := make(warmHandler, 1)
	met := make(chan error, 1)
	go func() { met <- both[0].Join(ctx, peers, heard) }()
	err := both[1].Join(ctx, peers, heard)
	if err = errors.Join(err, <-met); err != nil {
		return nil
	}
	if err := both[1].Send(0, []byte{msgRegistered}); err != nil {
		return fmt.Errorf("a mesh of two on loopback: %w", err)
	}
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
		return errors.New("a mesh of two on loopback carries no message")
	}
}

// warmHandler takes the rehearsal's one message.
type warmHandler chan struct{}

func (h warmHandler) Message(int, []byte)           { h <- struct{}{} }
func (warmHandler) Down(int, error)                 {}
func (warmHandler) Stream(int, []byte, mesh.Stream) {}
