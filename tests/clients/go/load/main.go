// Command load writes through etcd's own Go client, one key after the other in each of a few tasks, as long as a file is
// there, and then looks for everything that was acknowledged at each endpoint by itself. What it saw is printed as JSON.
//
// A write that fails is tried again, as a program with patience would; how often is part of what is printed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	writers = 4
	// Between two writes of a task, so that the disk of a small machine is not the measure.
	pace = 5 * time.Millisecond
	// How long a write may take before it is tried again.
	attemptLimit = 5 * time.Second
	retryPause   = 50 * time.Millisecond
	// So often a write is tried before it counts as an error that a client would see.
	attemptsMax = 20
)

// What a task, or all of them, saw.
type report struct {
	Puts int `json:"puts"`
	// Writes that took more than one attempt, the most attempts of one, and those that were given up.
	Retried  int `json:"retried"`
	Attempts int `json:"attempts"`
	Failed   int `json:"failed"`
	// The longest time from the first attempt to the acknowledgement.
	SlowestMs int64 `json:"slowest_ms"`
	// Acknowledged writes that an endpoint has not got.
	Missing int            `json:"missing"`
	Errors  map[string]int `json:"errors"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: load ENDPOINT,... WHILE_FILE PROGRESS_FILE")
		os.Exit(2)
	}
	endpoints := strings.Split(os.Args[1], ",")
	client := connect(endpoints)
	defer client.Close()
	progress, err := os.Create(os.Args[3])
	check(err)
	var (
		group   sync.WaitGroup
		lock    sync.Mutex
		reports [writers]report
		keys    = map[string]bool{}
	)
	for number := range writers {
		group.Go(func() {
			seen := &reports[number]
			seen.Errors = map[string]int{}
			for exists(os.Args[2]) {
				key := fmt.Sprintf("load/%d/%06d", number, seen.Puts)
				if !write(client, key, seen) {
					continue
				}
				lock.Lock()
				keys[key] = true
				fmt.Fprintln(progress, key)
				lock.Unlock()
				time.Sleep(pace)
			}
		})
	}
	group.Wait()
	total := sum(reports[:])
	for _, endpoint := range endpoints {
		total.Missing += missing(endpoint, keys)
	}
	check(json.NewEncoder(os.Stdout).Encode(total))
}

// Writes one key, until it is acknowledged.
func write(client *clientv3.Client, key string, seen *report) bool {
	begun := time.Now()
	for attempt := 1; attempt <= attemptsMax; attempt++ {
		ctx, cancel := context.WithTimeout(context.Background(), attemptLimit)
		_, err := client.Put(ctx, key, key)
		cancel()
		seen.Attempts = max(seen.Attempts, attempt)
		if err == nil {
			seen.Puts++
			seen.SlowestMs = max(seen.SlowestMs, time.Since(begun).Milliseconds())
			return true
		}
		if attempt == 1 {
			seen.Retried++
		}
		seen.Errors[err.Error()]++
		time.Sleep(retryPause)
	}
	seen.Failed++
	return false
}

func sum(reports []report) report {
	total := report{Errors: map[string]int{}}
	for _, one := range reports {
		total.Puts += one.Puts
		total.Retried += one.Retried
		total.Failed += one.Failed
		total.Attempts = max(total.Attempts, one.Attempts)
		total.SlowestMs = max(total.SlowestMs, one.SlowestMs)
		for text, count := range one.Errors {
			total.Errors[text] += count
		}
	}
	return total
}

// How many of `keys` the member at `endpoint` has not got, asked about by itself.
func missing(endpoint string, keys map[string]bool) int {
	client := connect([]string{endpoint})
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	found, err := client.Get(ctx, "load/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	check(err)
	has := map[string]bool{}
	for _, row := range found.Kvs {
		has[string(row.Key)] = true
	}
	count := 0
	for key := range keys {
		if !has[key] {
			fmt.Fprintln(os.Stderr, endpoint, "lacks", key)
			count++
		}
	}
	return count
}

func connect(endpoints []string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: attemptLimit})
	check(err)
	return client
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
