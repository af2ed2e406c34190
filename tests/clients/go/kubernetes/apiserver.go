package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"google.golang.org/grpc/metadata"
)

const (
	// Objects that share a lease, as in an apiserver.
	leaseObjectsMax = 1000
	// Keys of one page of a list, as in an apiserver.
	pageKeys = 500
	// The key that says how often the past was compacted.
	compactKey = "compact_rev_key"
	// Times of connections, as in an apiserver.
	dialTimeout, aliveTime, aliveTimeout = 20 * time.Second, 30 * time.Second, 10 * time.Second
	// How often an apiserver whose readers wait asks how far its watches are.
	progressEvery = 200 * time.Millisecond
)

var getOptions = kubernetes.GetOptions{}

// apiserver is one client of the cluster, and the caches behind it.
type apiserver struct {
	*kubernetes.Client
	number int
	caches map[string]*informer
}

func (l *load) connect(number int) (*apiserver, error) {
	config, err := l.tls()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.New(clientv3.Config{
		Endpoints:            splitEndpoints(l.endpoints),
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    aliveTime,
		DialKeepAliveTimeout: aliveTimeout,
		TLS:                  config,
	})
	if err != nil {
		return nil, err
	}
	return &apiserver{Client: client, number: number, caches: map[string]*informer{}}, nil
}

func (l *load) tls() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(l.cert, l.key)
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(l.cacert)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s holds no certificate", l.cacert)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

// watching is the context of the watches of a resource: those of pods have a stream of their own, the others share one.
func watching(ctx context.Context, resource string) context.Context {
	ctx = clientv3.WithRequireLeader(ctx)
	if resource == pods {
		return metadata.AppendToOutgoingContext(ctx, "resource", resource)
	}
	return ctx
}

// requestProgress asks how far the watches are, again and again.
func (s *apiserver) requestProgress(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(progressEvery):
		}
		for _, resource := range []string{pods, nodes} {
			if err := s.RequestProgress(watching(ctx, resource)); err != nil && ctx.Err() == nil {
				return fmt.Errorf("asking for progress: %w", err)
			}
		}
	}
}

// writer changes pods as controllers do: it knows them from the cache of its apiserver, which may be behind.
type writer struct {
	*load
	server *apiserver
	name   string
	made   int
	chance *rand.Rand
}

func (l *load) writer(server *apiserver, name string) *writer {
	name = fmt.Sprintf("%s-%d", name, server.number)
	var seed [32]byte
	copy(seed[:], name)
	return &writer{load: l, server: server, name: name, chance: rand.New(rand.NewChaCha8(seed))}
}

func (w *writer) step(ctx context.Context) error {
	cache := w.server.caches[pods]
	switch lot := w.chance.IntN(100); {
	case lot < 50:
		return w.update(ctx, cache)
	case lot < 60:
		return w.get(ctx, cache)
	case cache.size() < w.pods:
		return w.create(ctx)
	default:
		return w.remove(ctx, cache)
	}
}

func (w *writer) create(ctx context.Context) error {
	w.made++
	key := fmt.Sprintf("%sns-%02d/%s-%06d", pods, w.chance.IntN(20), w.name, w.made)
	begun := time.Now()
	done, err := w.server.Kubernetes.OptimisticPut(ctx, key, value(podBytes), 0, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil {
		return fmt.Errorf("creating %s: %w", key, err)
	}
	if !done.Succeeded {
		return fmt.Errorf("creating %s, which nobody else does: it is there: %v", key, done.KV)
	}
	w.taken.add("create", begun)
	w.ledgers[pods].note(done.Revision)
	return nil
}

func (w *writer) update(ctx context.Context, cache *informer) error {
	key, revision := cache.pick(w.chance)
	for key != "" {
		begun := time.Now()
		done, err := w.server.Kubernetes.OptimisticPut(ctx, key, value(podBytes), revision, kubernetes.PutOptions{GetOnFailure: true})
		if err != nil {
			return fmt.Errorf("updating %s: %w", key, err)
		}
		if done.Succeeded {
			w.taken.add("update", begun)
			w.ledgers[pods].note(done.Revision)
			return nil
		}
		w.taken.add("conflict", begun)
		if done.KV == nil {
			return nil
		}
		if string(done.KV.Key) != key || done.KV.ModRevision <= revision {
			return fmt.Errorf("updating %s at %d is refused because of %v", key, revision, done.KV)
		}
		revision = done.KV.ModRevision
	}
	return nil
}

func (w *writer) remove(ctx context.Context, cache *informer) error {
	key, revision := cache.pick(w.chance)
	for key != "" {
		begun := time.Now()
		done, err := w.server.Kubernetes.OptimisticDelete(ctx, key, revision, kubernetes.DeleteOptions{GetOnFailure: true})
		if err != nil {
			return fmt.Errorf("deleting %s: %w", key, err)
		}
		if done.Succeeded {
			w.taken.add("delete", begun)
			w.ledgers[pods].note(done.Revision)
			return nil
		}
		w.taken.add("conflict", begun)
		if done.KV == nil {
			return nil
		}
		revision = done.KV.ModRevision
	}
	return nil
}

func (w *writer) get(ctx context.Context, cache *informer) error {
	key, revision := cache.pick(w.chance)
	if key == "" {
		return nil
	}
	begun := time.Now()
	got, err := w.server.Kubernetes.Get(ctx, key, getOptions)
	if err != nil {
		return fmt.Errorf("getting %s: %w", key, err)
	}
	w.taken.add("get", begun)
	if got.KV != nil && got.KV.ModRevision < revision {
		return fmt.Errorf("a linearizable read of %s is older than what a watch told: %d < %d", key, got.KV.ModRevision, revision)
	}
	return nil
}

// recorder writes events, which end with leases that a thousand of them share.
type recorder struct {
	*load
	server      *apiserver
	made        int
	lease       clientv3.LeaseID
	objects     int
	replaceable time.Time
}

func (l *load) recorder(server *apiserver) *recorder {
	return &recorder{load: l, server: server}
}

func (r *recorder) step(ctx context.Context) error {
	if err := r.renew(ctx); err != nil {
		return fmt.Errorf("granting: %w", err)
	}
	r.made++
	r.objects++
	key := fmt.Sprintf("%sdefault/%d-%08d", events, r.server.number, r.made)
	begun := time.Now()
	done, err := r.server.Kubernetes.OptimisticPut(ctx, key, value(eventBytes), 0, kubernetes.PutOptions{LeaseID: r.lease})
	if err != nil || !done.Succeeded {
		return fmt.Errorf("recording %s, succeeded: %v, %v", key, done.Succeeded, err)
	}
	r.taken.add("event", begun)
	r.ledgers[events].note(done.Revision)
	return nil
}

// renew takes another lease when this one has its objects, or is so old that they would end too early.
func (r *recorder) renew(ctx context.Context) error {
	if r.objects%leaseObjectsMax != 0 && time.Now().Before(r.replaceable) {
		return nil
	}
	reuse := max(r.eventSeconds/2, 1)
	begun := time.Now()
	granted, err := r.server.Grant(ctx, int64(r.eventSeconds+reuse))
	if err != nil {
		return err
	}
	r.taken.add("lease grant", begun)
	r.lease, r.objects = granted.ID, 0
	r.replaceable = begun.Add(time.Duration(reuse) * time.Second)
	return nil
}

// kubelet renews the lease objects of all nodes in turn. Nobody else changes them.
type kubelet struct {
	*load
	server    *apiserver
	next      int
	revisions []int64
}

func (l *load) kubelet(server *apiserver) *kubelet {
	return &kubelet{load: l, server: server, revisions: make([]int64, l.nodes)}
}

func (k *kubelet) step(ctx context.Context) error {
	node := k.next % k.nodes
	k.next++
	key := fmt.Sprintf("%snode-%04d", nodes, node)
	begun := time.Now()
	done, err := k.server.Kubernetes.OptimisticPut(ctx, key, value(nodeBytes), k.revisions[node], kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || !done.Succeeded {
		return fmt.Errorf("renewing %s at %d, it is %v: %v", key, k.revisions[node], done.KV, err)
	}
	k.taken.add("heartbeat", begun)
	k.ledgers[nodes].note(done.Revision)
	k.revisions[node] = done.Revision
	return nil
}

// compactor compacts what was there a round ago, if no other apiserver did it in this round.
type compactor struct {
	*load
	server           *apiserver
	version, current int64
}

func (c *compactor) step(ctx context.Context) error {
	begun := time.Now()
	done, err := c.server.Client.Txn(ctx).
		If(clientv3.Compare(clientv3.Version(compactKey), "=", c.version)).
		Then(clientv3.OpPut(compactKey, strconv.FormatInt(c.current, 10))).
		Else(clientv3.OpGet(compactKey)).
		Commit()
	if err != nil {
		return fmt.Errorf("the transaction before a compaction: %w", err)
	}
	c.taken.add("compact txn", begun)
	target := c.current
	c.current = done.Header.Revision
	if !done.Succeeded {
		kvs := done.Responses[0].GetResponseRange().Kvs
		if len(kvs) != 1 {
			return errors.New("the transaction before a compaction fails, and there is no reason")
		}
		c.version = kvs[0].Version
		return nil
	}
	c.version++
	if target == 0 {
		return nil
	}
	begun = time.Now()
	if _, err := c.server.Compact(ctx, target); err != nil {
		return fmt.Errorf("compacting %d: %w", target, err)
	}
	c.taken.add("compact", begun)
	return nil
}

// relist lists all pods in pages at one revision, and counts them as an apiserver does for its metrics.
func (l *load) relist(ctx context.Context, server *apiserver) error {
	if _, err := l.list(ctx, server, pods, 0, func(*keyValue) {}); err != nil {
		return err
	}
	begun := time.Now()
	if _, err := server.Kubernetes.Count(ctx, pods, kubernetes.CountOptions{}); err != nil {
		return fmt.Errorf("counting %s: %w", pods, err)
	}
	l.taken.add("count", begun)
	return nil
}

// list tells everything below a prefix at a revision, or now, in pages, and returns the revision.
func (l *load) list(ctx context.Context, server *apiserver, prefix string, revision int64, each func(*keyValue)) (int64, error) {
	pinned, next, last := revision, "", ""
	for told, left := int64(0), int64(1); left > 0; {
		begun := time.Now()
		page, err := server.Kubernetes.List(ctx, prefix, kubernetes.ListOptions{Revision: pinned, Limit: pageKeys, Continue: next})
		if err != nil {
			return 0, fmt.Errorf("listing %s at %d from %q: %w", prefix, pinned, next, err)
		}
		l.taken.add("list page", begun)
		if pinned == 0 {
			pinned = page.Revision
		}
		for _, kv := range page.Kvs {
			if key := string(kv.Key); key <= last || kv.ModRevision > pinned {
				return 0, fmt.Errorf("a list at %d has %s of %d behind %s", pinned, key, kv.ModRevision, last)
			}
			last = string(kv.Key)
			each(kv)
		}
		told += int64(len(page.Kvs))
		if left = page.Count - int64(len(page.Kvs)); left > 0 && len(page.Kvs) != pageKeys {
			return 0, fmt.Errorf("a page of %s at %d has %d keys though %d are left", prefix, pinned, len(page.Kvs), left)
		}
		next = last + "\x00"
	}
	return pinned, nil
}

// ledger is what was written to one resource: every revision once.
type ledger struct {
	sync.Mutex
	revisions []int64
}

func (l *ledger) note(revision int64) {
	l.Lock()
	defer l.Unlock()
	l.revisions = append(l.revisions, revision)
}
