package main

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

type keyValue = mvccpb.KeyValue

// Longest wait until a cache has everything that was written.
const patience = time.Minute

// Objects that everybody wants to change, and how often one of them is picked of ten times.
const hotObjects, hotTenths = 8, 1

// object is what a cache remembers: enough to know whether an event is the next one.
type object struct {
	create, mod, version int64
	value                uint64
	place                int
}

// informer is a cache of one resource: a list, and every event since.
type informer struct {
	*load
	server   *apiserver
	resource string
	watch    clientv3.WatchChan

	mu      sync.Mutex
	objects map[string]object
	keys    []string
	// The revision of the list.
	begun int64
	// The revision of the newest event, or of the list: what the cache shows.
	told int64
	// Everything up to here has been applied, or so the newest progress response says.
	reached int64
	// Progress responses that came ahead of events that they promise to follow.
	early int
	// The revisions of all events but those that ended with a lease.
	seen []int64
	// How many events there were, and how many of them ended with a lease.
	events, expired int
}

func newInformer(l *load, server *apiserver, resource string) *informer {
	return &informer{load: l, server: server, resource: resource, objects: map[string]object{}}
}

var seed = maphash.MakeSeed()

func objectOf(kv *keyValue) object {
	return object{create: kv.CreateRevision, mod: kv.ModRevision, version: kv.Version, value: maphash.Bytes(seed, kv.Value)}
}

// begin lists, and watches from there until the context ends.
func (i *informer) begin(ctx context.Context) error {
	revision, err := i.list(ctx, i.server, i.resource, 0, func(kv *keyValue) { i.set(string(kv.Key), objectOf(kv)) })
	if err != nil {
		return err
	}
	i.begun, i.told, i.reached = revision, revision, revision
	i.watch = i.server.Watch(watching(ctx, i.resource), i.resource, clientv3.WithPrefix(), clientv3.WithRev(revision+1),
		clientv3.WithPrevKV(), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	if created, ok := <-i.watch; !ok || !created.Created {
		return fmt.Errorf("the watch of %s is not created: %w", i.resource, created.Err())
	}
	return nil
}

// follow applies what the watch tells until the context ends.
func (i *informer) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case response, ok := <-i.watch:
			if ctx.Err() != nil {
				return nil
			}
			if err := response.Err(); err != nil || !ok {
				return fmt.Errorf("the watch of %s from %d ends: %w", i.resource, i.begun+1, err)
			}
			if err := i.take(response); err != nil {
				return fmt.Errorf("the watch of %s from %d: %w", i.resource, i.begun+1, err)
			}
		}
	}
}

// take applies one response whole.
func (i *informer) take(response clientv3.WatchResponse) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if response.IsProgressNotify() {
		i.reached = max(i.reached, response.Header.Revision)
		return nil
	}
	behind := i.told
	if len(response.Events) > 0 && response.Events[0].Kv.ModRevision <= i.reached && i.reached > i.told {
		// etcd sends a watch that was just created a progress response that others had asked for before.
		i.early++
		i.reached = behind
	}
	for _, event := range response.Events {
		if event.Kv.ModRevision <= behind || event.Kv.ModRevision < i.told {
			return fmt.Errorf("%s comes behind revision %d", show(event), i.told)
		}
		if err := i.apply(event); err != nil {
			return err
		}
		i.told = event.Kv.ModRevision
	}
	i.reached = max(i.reached, i.told)
	return nil
}

func show(event *clientv3.Event) string {
	kv := event.Kv
	return fmt.Sprintf("%v of %s (version %d) at %d", event.Type, kv.Key, kv.Version, kv.ModRevision)
}

// apply makes one event part of the cache if it is the next one of its key.
func (i *informer) apply(event *clientv3.Event) error {
	key := string(event.Kv.Key)
	known, isKnown := i.objects[key]
	if prev := event.PrevKv; (prev != nil) != isKnown || isKnown && !known.is(objectOf(prev)) {
		return fmt.Errorf("%s does not follow %+v (known: %v)", show(event), known, isKnown)
	}
	i.events++
	if event.Type == mvccpb.DELETE {
		return i.applyDelete(key, isKnown, event.Kv.ModRevision)
	}
	next := objectOf(event.Kv)
	first := !isKnown && next.create == next.mod && next.version == 1
	if !first && (next.create != known.create || next.version != known.version+1) {
		return fmt.Errorf("%s does not follow %+v", show(event), known)
	}
	i.seen = append(i.seen, event.Kv.ModRevision)
	i.taken.lag(event.Kv.Value)
	i.set(key, next)
	return nil
}

func (i *informer) applyDelete(key string, isKnown bool, revision int64) error {
	if !isKnown {
		return fmt.Errorf("%s is deleted at %d and was not there", key, revision)
	}
	// Nobody deletes events but their leases, which takes many of them at one revision.
	if i.resource == events {
		i.expired++
	} else {
		i.seen = append(i.seen, revision)
	}
	i.unset(key)
	return nil
}

func (o object) is(other object) bool {
	other.place = o.place
	return o == other
}

func (i *informer) set(key string, next object) {
	if known, ok := i.objects[key]; ok {
		next.place = known.place
	} else {
		next.place = len(i.keys)
		i.keys = append(i.keys, key)
	}
	i.objects[key] = next
}

func (i *informer) unset(key string) {
	place, last := i.objects[key].place, len(i.keys)-1
	moved := i.keys[last]
	i.keys[place] = moved
	i.keys = i.keys[:last]
	if moved != key {
		next := i.objects[moved]
		next.place = place
		i.objects[moved] = next
	}
	delete(i.objects, key)
}

func (i *informer) size() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.keys)
}

// pick chooses a key, and tells which revision of it is known; nothing if there is none.
func (i *informer) pick(chance *rand.Rand) (string, int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	among := len(i.keys)
	if among == 0 {
		return "", 0
	}
	if chance.IntN(10) < hotTenths {
		among = min(among, hotObjects)
	}
	key := i.keys[chance.IntN(among)]
	return key, i.objects[key].mod
}

// waitFor returns when everything up to the revision has been applied.
func (i *informer) waitFor(ctx context.Context, revision int64) error {
	deadline := time.Now().Add(patience)
	for {
		i.mu.Lock()
		reached := i.reached
		i.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case reached >= revision:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("the cache of %s stays at %d instead of %d", i.resource, reached, revision)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// verify compares the cache with a list at the revision that it shows.
func (i *informer) verify(ctx context.Context) error {
	left := len(i.keys)
	var wrong []string
	_, err := i.list(ctx, i.server, i.resource, i.told, func(kv *keyValue) {
		left--
		if known, ok := i.objects[string(kv.Key)]; !ok || !known.is(objectOf(kv)) {
			wrong = append(wrong, fmt.Sprintf("%s (cached: %v)", kv.Key, ok))
		}
	})
	if err != nil {
		return err
	}
	if left != 0 || len(wrong) > 0 {
		return fmt.Errorf("the cache of %s at %d has %d objects more than a list; other ones are: %s",
			i.resource, i.told, left, strings.Join(wrong, ", "))
	}
	return nil
}

// compare holds the events against what was written: each has to be there, once, and nothing else.
func (i *informer) compare(written *ledger) error {
	var expected []int64
	for _, revision := range written.revisions {
		if revision > i.begun {
			expected = append(expected, revision)
		}
	}
	slices.Sort(expected)
	if !slices.Equal(expected, i.seen) {
		return fmt.Errorf("the watch of %s saw %d events where %d were written", i.resource, len(i.seen), len(expected))
	}
	return nil
}

// visit is the life of a controller that comes, lists, watches for a while, and goes.
func (l *load) visit(ctx context.Context, resource string) error {
	watched, cancel := context.WithTimeout(ctx, l.visitOf)
	defer cancel()
	informer := newInformer(l, l.servers[len(l.servers)-1], resource)
	if err := informer.begin(watched); err != nil {
		return err
	}
	if err := informer.follow(watched); err != nil {
		return err
	}
	if err := informer.verify(ctx); err != nil {
		return err
	}
	l.taken.count(informer)
	return nil
}
