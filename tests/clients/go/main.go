// Command clientv3smoke walks through etcd's own Go client against one fresh member and prints what it saw, without
// anything that differs between two fresh members. Two daemons that print the same are the same to this client.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

type walk struct {
	*clientv3.Client
	context.Context
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := clientv3.New(clientv3.Config{Endpoints: os.Args[1:2], DialTimeout: 5 * time.Second})
	check(err)
	defer client.Close()
	w := walk{client, ctx}
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"put and get", w.putAndGet}, {"prefix", w.prefix}, {"transaction", w.transaction}, {"watch", w.watch},
		{"lease", w.lease}, {"compaction", w.compaction}, {"mutex", w.mutex}, {"election", w.election}, {"stm", w.stm},
		{"maintenance", w.maintenance}, {"errors", w.errors},
	} {
		fmt.Println("#", step.name)
		step.run()
	}
	fmt.Println("done")
}

func (w walk) putAndGet() {
	put, err := w.Put(w, "greeting", "hello")
	check(err)
	fmt.Println("put", put.Header.Revision, put.PrevKv)
	put, err = w.Put(w, "greeting", "hello again", clientv3.WithPrevKV())
	check(err)
	fmt.Println("put", put.Header.Revision, put.PrevKv)
	show(w.Get(w, "greeting"))
	show(w.Get(w, "greeting", clientv3.WithRev(2)))
	show(w.Get(w, "nothing"))
	show(w.Get(w, "greeting", clientv3.WithSerializable()))
}

func (w walk) prefix() {
	for n := range 25 {
		_, err := w.Put(w, fmt.Sprintf("list/%02d", n), strings.Repeat("x", 25-n))
		check(err)
	}
	show(w.Get(w, "list/", clientv3.WithPrefix(), clientv3.WithLimit(3)))
	show(w.Get(w, "list/", clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)))
	show(w.Get(w, "list/", clientv3.WithPrefix(), clientv3.WithLimit(2), clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)))
	show(w.Get(w, "list/", clientv3.WithPrefix(), clientv3.WithCountOnly()))
	show(w.Get(w, "list/20", clientv3.WithFromKey(), clientv3.WithMinModRev(26)))
	deleted, err := w.Delete(w, "list/0", clientv3.WithPrefix(), clientv3.WithPrevKV())
	check(err)
	fmt.Println("deleted", deleted.Deleted, len(deleted.PrevKvs), deleted.Header.Revision)
}

func (w walk) transaction() {
	for range 2 {
		response, err := w.Txn(w).
			If(clientv3.Compare(clientv3.Version("once"), "=", 0)).
			Then(clientv3.OpPut("once", "1"), clientv3.OpGet("once"), clientv3.OpDelete("list/10")).
			Else(clientv3.OpGet("once"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("twice", "2")}, nil)).
			Commit()
		check(err)
		fmt.Println(response.Succeeded, response.Header.Revision)
		for _, op := range response.Responses {
			fmt.Println(" ", op)
		}
	}
}

func (w walk) watch() {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(w))
	defer cancel()
	put, err := w.Put(w, "watched", "before")
	check(err)
	events := w.Watch(ctx, "watched", clientv3.WithPrevKV(), clientv3.WithRev(put.Header.Revision))
	_, err = w.Put(w, "watched", "after")
	check(err)
	_, err = w.Delete(w, "watched")
	check(err)
	for seen := 0; seen < 3; {
		response := <-events
		check(response.Err())
		for _, event := range response.Events {
			fmt.Println(event.Type, event.Kv, event.PrevKv)
			seen++
		}
	}
	check(w.RequestProgress(ctx))
	for response := range events {
		fmt.Println("progress", response.IsProgressNotify(), response.Header.Revision)
		break
	}
	filtered := w.Watch(ctx, "filtered", clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	fmt.Println("created", (<-filtered).Created)
	_, err = w.Put(w, "filtered", "unseen")
	check(err)
	_, err = w.Delete(w, "filtered")
	check(err)
	fmt.Println((<-filtered).Events[0].Type)
}

func (w walk) lease() {
	granted, err := w.Grant(w, 60)
	check(err)
	_, err = w.Put(w, "leased", "short-lived", clientv3.WithLease(granted.ID))
	check(err)
	left, err := w.TimeToLive(w, granted.ID, clientv3.WithAttachedKeys())
	check(err)
	fmt.Println("ttl", granted.TTL, left.GrantedTTL, left.TTL > 50, left.Keys)
	renewed, err := w.KeepAliveOnce(w, granted.ID)
	check(err)
	fmt.Println("renewed", renewed.TTL)
	all, err := w.Leases(w)
	check(err)
	fmt.Println("leases", len(all.Leases))
	revoked, err := w.Revoke(w, granted.ID)
	check(err)
	fmt.Println("revoked", revoked.Header.Revision)
	show(w.Get(w, "leased"))
	left, err = w.TimeToLive(w, granted.ID)
	check(err)
	fmt.Println("gone", left.TTL, left.GrantedTTL)
	// A lease nobody keeps alive takes its key along, and the watcher hears of it.
	brief, err := w.Grant(w, 1)
	check(err)
	put, err := w.Put(w, "brief", "", clientv3.WithLease(brief.ID))
	check(err)
	response := <-w.Watch(w, "brief", clientv3.WithRev(put.Header.Revision+1))
	fmt.Println("expired", response.Events[0].Type, response.Events[0].Kv)
}

func (w walk) compaction() {
	now, err := w.Get(w, "greeting")
	check(err)
	_, err = w.Compact(w, now.Header.Revision-2, clientv3.WithCompactPhysical())
	check(err)
	_, err = w.Get(w, "greeting", clientv3.WithRev(3))
	fmt.Println(err)
	_, err = w.Compact(w, now.Header.Revision-2)
	fmt.Println(err, errors.Is(err, rpctypes.ErrCompacted))
	response := <-w.Watch(w, "greeting", clientv3.WithRev(1))
	fmt.Println("canceled", response.Canceled, response.CompactRevision, response.Err())
}

func (w walk) mutex() {
	first, second := w.session(), w.session()
	defer first.Close()
	defer second.Close()
	held, wanted := concurrency.NewMutex(first, "lock"), concurrency.NewMutex(second, "lock")
	check(held.Lock(w))
	fmt.Println("second", wanted.TryLock(w))
	locked := make(chan error)
	go func() { locked <- wanted.Lock(w) }()
	check(held.Unlock(w))
	check(<-locked)
	fmt.Println("handed over", held.Key() != wanted.Key())
	check(wanted.Unlock(w))
}

func (w walk) election() {
	first, second := w.session(), w.session()
	defer first.Close()
	defer second.Close()
	leader, follower := concurrency.NewElection(first, "office"), concurrency.NewElection(second, "office")
	check(leader.Campaign(w, "first"))
	won := make(chan error)
	go func() { won <- follower.Campaign(w, "second") }()
	current, err := follower.Leader(w)
	check(err)
	fmt.Println("leader", string(current.Kvs[0].Value))
	check(leader.Proclaim(w, "first still"))
	observed := leader.Observe(w)
	response := <-observed
	fmt.Println("observed", string(response.Kvs[0].Value))
	check(leader.Resign(w))
	check(<-won)
	current, err = leader.Leader(w)
	check(err)
	fmt.Println("leader", string(current.Kvs[0].Value))
	check(follower.Resign(w))
	_, err = leader.Leader(w)
	fmt.Println(err)
}

func (w walk) stm() {
	_, err := w.Put(w, "account", "10")
	check(err)
	results := make(chan error)
	for range 4 {
		go func() {
			_, err := concurrency.NewSTM(w.Client, func(s concurrency.STM) error {
				var balance int
				fmt.Sscan(s.Get("account"), &balance)
				s.Put("account", fmt.Sprint(balance+1))
				return nil
			}, concurrency.WithAbortContext(w))
			results <- err
		}()
	}
	for range 4 {
		check(<-results)
	}
	final, err := w.Get(w, "account")
	check(err)
	fmt.Println("account", string(final.Kvs[0].Value))
}

func (w walk) maintenance() {
	status, err := w.Status(w, w.Endpoints()[0])
	check(err)
	fmt.Println("status", status.Leader == status.Header.MemberId, status.IsLearner, status.Errors, status.DbSizeQuota)
	members, err := w.MemberList(w)
	check(err)
	fmt.Println("members", len(members.Members), members.Members[0].Name, members.Members[0].IsLearner)
	alarms, err := w.AlarmList(w)
	check(err)
	fmt.Println("alarms", len(alarms.Alarms))
	hash, err := w.HashKV(w, w.Endpoints()[0], 0)
	check(err)
	fmt.Println("hash", hash.HashRevision > 0, hash.CompactRevision > 0)
	_, err = w.Defragment(w, w.Endpoints()[0])
	check(err)
}

func (w walk) errors() {
	_, err := w.Put(w, "", "no key")
	fmt.Println(err)
	_, err = w.Get(w, "greeting", clientv3.WithRev(1<<40))
	fmt.Println(err)
	_, err = w.Put(w, "greeting", "x", clientv3.WithLease(4242))
	fmt.Println(err, errors.Is(err, rpctypes.ErrLeaseNotFound))
	_, err = w.Revoke(w, 4242)
	fmt.Println(err)
	_, err = w.KeepAliveOnce(w, 4242)
	fmt.Println(err)
	_, err = w.Txn(w).Then(clientv3.OpPut("a", "1"), clientv3.OpPut("a", "2")).Commit()
	fmt.Println(err)
	_, err = w.Put(w, "large", strings.Repeat("x", 1600*1024))
	fmt.Println(err)
	_, err = w.MoveLeader(w, 4242)
	fmt.Println(err)
	_, err = w.MemberRemove(w, 4242)
	fmt.Println(err)
	_, err = w.AuthEnable(w)
	fmt.Println(err)
}

func (w walk) session() *concurrency.Session {
	session, err := concurrency.NewSession(w.Client, concurrency.WithTTL(30), concurrency.WithContext(w))
	check(err)
	return session
}

func show(response *clientv3.GetResponse, err error) {
	check(err)
	fmt.Println("got", response.Count, response.More, response.Header.Revision)
	for _, kv := range response.Kvs {
		fmt.Println(" ", strings.Join(strings.Fields(fmt.Sprint(kv)), " "))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
}
