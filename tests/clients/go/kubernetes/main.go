// Command kubernetesload does to a cluster what the apiservers of a Kubernetes cluster do: objects are created, changed and
// deleted by transactions on their mod revision, listed in pages at one revision, and followed by watches from there; events
// end with leases that they share; the past is compacted by whoever wins a transaction. It goes through etcd's own Go client.
//
// Any error of a client is a failure. So is a watch that misses an event, repeats one or has it in the wrong order, and a
// cache that is not what a list at its revision says. What was measured is printed as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// The resources of the load, by their prefixes.
const (
	pods   = "/registry/pods/"
	events = "/registry/events/"
	nodes  = "/registry/leases/kube-node-lease/"
)

var resources = []string{pods, events, nodes}

// options say where the cluster is and how much is done to it.
type options struct {
	endpoints             string
	cacert, cert, key     string
	seconds               int
	apiservers, writers   int
	pods, nodes           int
	eventSeconds          int
	compactEvery, visitOf time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.endpoints, "endpoints", "", "client URLs, separated by commas")
	flag.StringVar(&o.cacert, "cacert", "", "the authority of the members' certificates, PEM")
	flag.StringVar(&o.cert, "cert", "", "the certificate of the clients, PEM")
	flag.StringVar(&o.key, "key", "", "its key, PEM")
	flag.IntVar(&o.seconds, "seconds", 10, "how long the load lasts")
	flag.IntVar(&o.apiservers, "apiservers", 3, "how many apiservers there are, each with a client and caches of its own")
	flag.IntVar(&o.writers, "writers", 4, "who changes pods at a time, for each apiserver")
	flag.IntVar(&o.pods, "pods", 1200, "how many pods there are to be")
	flag.IntVar(&o.nodes, "nodes", 50, "nodes, each of which renews its lease object every second")
	flag.IntVar(&o.eventSeconds, "event-seconds", 3, "how long an event lives at least, in seconds")
	flag.DurationVar(&o.compactEvery, "compact-every", 3*time.Second, "how often each apiserver tries to compact")
	flag.DurationVar(&o.visitOf, "visit", 2*time.Second, "how long a controller lives that comes and goes")
	flag.Parse()
	result, err := run(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}

// load is one run: who takes part, and what they have noted.
type load struct {
	options
	servers []*apiserver
	taken   *stopwatch
	// What was written to each resource.
	ledgers map[string]*ledger
}

func run(o options) (*result, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	l := &load{options: o, taken: newStopwatch(), ledgers: map[string]*ledger{}}
	for _, resource := range resources {
		l.ledgers[resource] = &ledger{}
	}
	for number := range o.apiservers {
		server, err := l.connect(number)
		if err != nil {
			return nil, err
		}
		defer server.Close()
		l.servers = append(l.servers, server)
	}
	if err := l.fill(ctx); err != nil {
		return nil, fmt.Errorf("filling: %w", err)
	}
	followers := newCrew(ctx)
	if err := l.follow(ctx, followers); err != nil {
		return nil, err
	}
	l.taken.reset()
	if err := l.work(followers); err != nil {
		return nil, err
	}
	result := l.taken.result(l.seconds)
	return result, l.settle(followers, result)
}

// fill makes the objects that are there from the beginning, and does not measure it.
func (l *load) fill(ctx context.Context) error {
	crew := newCrew(ctx)
	each := l.pods / (len(l.servers) * l.writers)
	for _, server := range l.servers {
		for number := range l.writers {
			writer := l.writer(server, fmt.Sprintf("old-%d", number))
			crew.start(func(ctx context.Context) error {
				for range each {
					if err := writer.create(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
	return crew.join()
}

// follow starts a cache of every resource for every apiserver and waits until each has its list and its watch.
func (l *load) follow(ctx context.Context, crew *crew) error {
	for _, server := range l.servers {
		for _, resource := range resources {
			informer := newInformer(l, server, resource)
			server.caches[resource] = informer
			if err := informer.begin(ctx); err != nil {
				return fmt.Errorf("watching %s: %w", resource, err)
			}
			crew.start(informer.follow)
		}
		crew.start(server.requestProgress)
	}
	return nil
}

// work does everything for as long as it is to last, or until something fails.
func (l *load) work(followers *crew) error {
	ctx, cancel := context.WithTimeout(followers.ctx, time.Duration(l.seconds)*time.Second)
	defer cancel()
	crew := newCrew(ctx)
	for _, server := range l.servers {
		for number := range l.writers {
			crew.start(repeat(l.writer(server, fmt.Sprintf("new-%d", number)).step))
		}
		crew.start(repeat(l.recorder(server).step))
		crew.start(every(time.Second, func(ctx context.Context) error { return l.relist(ctx, server) }))
		crew.start(every(l.compactEvery, (&compactor{load: l, server: server}).step))
	}
	kubelet := l.kubelet(l.servers[0])
	crew.start(every(time.Second/time.Duration(l.nodes), kubelet.step))
	for _, resource := range resources {
		crew.start(repeat(func(ctx context.Context) error { return l.visit(ctx, resource) }))
	}
	if err := crew.join(); err != nil {
		return err
	}
	return context.Cause(followers.ctx)
}

// settle waits until every cache has everything that was written, and compares each with a list and with what was written.
func (l *load) settle(followers *crew, result *result) error {
	now, err := l.servers[0].Kubernetes.Get(followers.ctx, "/registry", getOptions)
	if err != nil {
		return err
	}
	for _, server := range l.servers {
		for _, cache := range server.caches {
			if err := cache.waitFor(followers.ctx, now.Revision); err != nil {
				return err
			}
		}
	}
	followers.cancel(errOver)
	if err := followers.join(); err != nil {
		return err
	}
	for _, server := range l.servers {
		for resource, cache := range server.caches {
			if err := cache.verify(context.Background()); err != nil {
				return err
			}
			if err := cache.compare(l.ledgers[resource]); err != nil {
				return err
			}
			result.note(cache)
		}
	}
	return nil
}

// errOver ends those who would go on for ever.
var errOver = errors.New("it is over")

// crew is a number of tasks, all of which end when one fails.
type crew struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup
	once   sync.Once
	failed error
}

func newCrew(parent context.Context) *crew {
	ctx, cancel := context.WithCancelCause(parent)
	return &crew{ctx: ctx, cancel: cancel}
}

func (c *crew) start(work func(context.Context) error) {
	c.tasks.Go(func() {
		if err := work(c.ctx); err != nil {
			c.once.Do(func() { c.failed = err })
			c.cancel(err)
		}
	})
}

// join waits for all and tells what failed first.
func (c *crew) join() error {
	c.tasks.Wait()
	return c.failed
}

// repeat does a step again and again until the time is over. Steps are not interrupted: what fails then has failed.
func repeat(step func(context.Context) error) func(context.Context) error {
	return every(0, step)
}

// every does a step at most that often until the time is over.
func every(pause time.Duration, step func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for next := time.Now(); ctx.Err() == nil; next = next.Add(pause) {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Until(next)):
			}
			if err := uninterrupted(ctx, step); err != nil {
				return err
			}
		}
		return nil
	}
}

// requestTimeout is longer than any request takes that does not fail.
const requestTimeout = 30 * time.Second

func uninterrupted(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	return step(ctx)
}

func splitEndpoints(text string) []string {
	return strings.Split(text, ",")
}
