package launcher

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// How long a client may take. Without these, connections of clients that died,
// or mean no good, would stay for ever.
const (
	headPatience = 10 * time.Second // for the TLS handshake, and for a request's header
	bodyPatience = 30 * time.Second // for a request's body, at most 1 MiB
	idlePatience = time.Minute      // between requests
)

// patient limits how long a request's body may take, also one that the handler
// does not read: the server drains it before it answers. http.Server's own
// ReadTimeout goes on while a handler works, and would end requests that wait for
// a file to grow.
func patient(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			rc := http.NewResponseController(w)
			if rc.SetReadDeadline(time.Now().Add(bodyPatience)) == nil {
				r.Body = &timedBody{ReadCloser: r.Body, whole: func() { _ = rc.SetReadDeadline(time.Time{}) }}
			}
		}
		h.ServeHTTP(w, r)
	})
}

// timedBody calls whole once when the body has been read to its end.
type timedBody struct {
	io.ReadCloser
	once  sync.Once
	whole func()
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.once.Do(b.whole)
	}
	return n, err
}
