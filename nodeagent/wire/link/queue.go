package link

import "sync"

// Queue is what waits to be sent over a connection: many put, one goroutine
// takes and writes. It has no bound of its own, so that nobody who puts ever
// waits for a slow peer; what enters it is bounded by the protocol's windows of
// unacknowledged output.
type Queue[T any] struct {
	mu    sync.Mutex
	more  *sync.Cond
	items []T
	last  bool // nothing more is put
}

// NewQueue returns an empty queue.
func NewQueue[T any]() *Queue[T] {
	q := &Queue[T]{}
	q.more = sync.NewCond(&q.mu)
	return q
}

// Put appends v; after Finish or Close it is dropped.
func (q *Queue[T]) Put(v T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.last {
		q.items = append(q.items, v)
		q.more.Signal()
	}
}

// Take waits for the next item. It reports false when the queue was closed, or
// was finished and is empty.
func (q *Queue[T]) Take() (T, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.last {
		q.more.Wait()
	}
	var zero T
	if len(q.items) == 0 {
		return zero, false
	}
	v := q.items[0]
	q.items[0] = zero // the array behind the slice lives on
	q.items = q.items[1:]
	return v, true
}

// Finish lets Take hand out what is there and no more.
func (q *Queue[T]) Finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = true
	q.more.Broadcast()
}

// Close drops what is there; Take returns at once.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = true
	q.items = nil
	q.more.Broadcast()
}
