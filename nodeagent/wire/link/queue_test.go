package link

import (
	"slices"
	"testing"
)

func TestQueueOrderAndEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*Queue[int])
		want []int
	}{
		"finished hands out the rest": {(*Queue[int]).Finish, []int{1, 2, 3}},
		"closed drops it":             {(*Queue[int]).Close, nil},
	} {
		t.Run(name, func(t *testing.T) {
			q := NewQueue[int]()
			for i := range 3 {
				q.Put(i + 1)
			}
			c.end(q)
			q.Put(4)
			var got []int
			for {
				v, ok := q.Take()
				if !ok {
					break
				}
				got = append(got, v)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("took %v, want %v", got, c.want)
			}
		})
	}
}

func TestQueueManyPut(t *testing.T) {
	q := NewQueue[[2]int]()
	const writers, each = 4, 1000
	for w := range writers {
		go func() {
			for i := range each {
				q.Put([2]int{w, i})
			}
		}()
	}
	var next [writers]int
	for range writers * each {
		v, ok := q.Take()
		if !ok || v[1] != next[v[0]] {
			t.Fatalf("took %v, %v; want number %d of its writer", v, ok, next[v[0]])
		}
		next[v[0]]++
	}
	end := make(chan bool)
	go func() { _, ok := q.Take(); end <- ok }()
	q.Close()
	if <-end {
		t.Error("an item of a closed queue")
	}
}
