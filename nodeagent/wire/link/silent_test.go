package link

import (
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// frozen is a connection whose other end, once it is told to, takes what comes
// and answers nothing, as a host that has lost its power.
type frozen struct {
	net.Conn
	off chan struct{}
}

func (f *frozen) Write(b []byte) (int, error) {
	select {
	case <-f.off:
		return len(b), nil
	default:
		return f.Conn.Write(b)
	}
}

// TestServeNoticesSilence: a session ends when its peer vanishes, not before.
func TestServeNoticesSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		peer := &frozen{Conn: theirs, off: make(chan struct{})}
		begun, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			_ = Serve(t.Context(), ours, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				close(begun)
				_, _ = io.Copy(io.Discard, r.Body)
			}))
		}()
		hc, closeConn := Client(peer)
		defer closeConn()
		body, say := io.Pipe()
		defer say.Close()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		<-begun
		time.Sleep(10 * (pingAfter + pingWait)) // it answers, and may stay
		select {
		case <-ended:
			t.Fatal("a peer that is only idle was given up")
		default:
		}
		close(peer.off)
		select {
		case <-ended:
		case <-time.After(2 * (pingAfter + pingWait)):
			t.Error("the session with a peer that vanished goes on")
			closeConn()
			<-ended
		}
	})
}
