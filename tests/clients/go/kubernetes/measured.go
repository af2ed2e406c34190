package main

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Sizes of objects.
const podBytes, eventBytes, nodeBytes = 2048, 600, 400

// value is an object of that size that tells when it was written.
func value(size int) []byte {
	bytes := make([]byte, size)
	binary.BigEndian.PutUint64(bytes, uint64(time.Now().UnixNano()))
	for at := 8; at+8 <= size; at += 8 {
		// Half of an object is like all others.
		if at%16 == 0 {
			binary.BigEndian.PutUint64(bytes[at:], rand.Uint64())
		}
	}
	return bytes
}

// stopwatch notes how long requests of each kind took.
type stopwatch struct {
	mu     sync.Mutex
	kinds  map[string][]uint32
	visits int
	events int
	early  int
}

func newStopwatch() *stopwatch {
	return &stopwatch{kinds: map[string][]uint32{}}
}

func (s *stopwatch) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.kinds)
}

// add notes a request that began then and is over now.
func (s *stopwatch) add(kind string, begun time.Time) {
	micros := uint32(time.Since(begun).Microseconds())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds[kind] = append(s.kinds[kind], micros)
}

// lag notes how long an object was on its way from its writer to a cache.
func (s *stopwatch) lag(value []byte) {
	s.add("watch", time.Unix(0, int64(binary.BigEndian.Uint64(value))))
}

// count notes a controller that has come and gone.
func (s *stopwatch) count(visitor *informer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visits++
	s.events += visitor.events
	s.early += visitor.early
}

// kind is what one kind of requests has shown.
type kind struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	P50   uint32 `json:"p50_micros"`
	P99   uint32 `json:"p99_micros"`
}

// result is what a run has shown.
type result struct {
	Seconds int    `json:"seconds"`
	Kinds   []kind `json:"kinds"`
	// Caches that were compared, of controllers that stayed and that came and went, and the events they were told.
	Caches int `json:"caches"`
	Visits int `json:"visits"`
	Events int `json:"events"`
	// Events that ended with a lease, over all caches.
	Expired int `json:"expired"`
	// Progress responses ahead of events that they promise to follow, over all caches.
	Early int `json:"early"`
	// Objects in all caches at the end.
	Objects int `json:"objects"`
}

func (s *stopwatch) result(seconds int) *result {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := &result{Seconds: seconds, Visits: s.visits, Events: s.events, Early: s.early}
	for name, micros := range s.kinds {
		slices.Sort(micros)
		at := func(percent int) uint32 { return micros[len(micros)*percent/100] }
		result.Kinds = append(result.Kinds, kind{name, len(micros), at(50), at(99)})
	}
	return result
}

func (r *result) note(cache *informer) {
	r.Caches++
	r.Events += cache.events
	r.Expired += cache.expired
	r.Early += cache.early
	r.Objects += len(cache.keys)
}
