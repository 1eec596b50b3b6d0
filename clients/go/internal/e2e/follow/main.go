// follow keeps a copy of one kind by this module's client, and prints as JSON lines what happens to it, the whole of it
// last. It is run by tests that cut its connections, or replace its credentials. It ends after so many events, or when it
// is past the revision that it reads from its standard input.
//
//	follow --server 127.0.0.1:7443 --resource pods --events 100
//	follow --server 127.0.0.1:7443 --ca ca.crt --token-file token --to-revision
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// line is one thing that happened. Fields that do not apply are absent.
type line struct {
	// "list", "reset", "change", "cut" or "end".
	What string `json:"what"`
	// Of a change: Added, Modified or Deleted.
	Type            string          `json:"type,omitempty"`
	Key             string          `json:"key,omitempty"`
	UID             string          `json:"uid,omitempty"`
	ResourceVersion string          `json:"resourceVersion,omitempty"`
	Reason          string          `json:"reason,omitempty"`
	Revision        uint64          `json:"revision,omitempty"`
	Objects         map[string]held `json:"objects,omitempty"`
}

type held struct {
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
}

func main() {
	server := flag.String("server", "127.0.0.1:7443", "address of the gRPC port")
	resource := flag.String("resource", "pods", "the kind: pods, deployments.apps")
	selector := flag.String("selector", "", "only objects with these labels: app=web,tier!=db")
	events := flag.Int("events", 100, "end at the first mark after this many events")
	toRevision := flag.Bool("to-revision", false, "end instead at the first mark at the revision that comes by standard input")
	var own informerd.Credentials
	flag.StringVar(&own.CA, "ca", "", "authorities that sign the server's certificate")
	flag.StringVar(&own.Certificate, "cert", "", "client certificate")
	flag.StringVar(&own.Key, "key", "", "its key")
	flag.StringVar(&own.TokenFile, "token-file", "", "a token")
	timeout := flag.Duration("timeout", time.Minute, "fail when not at the end by then")
	flag.Parse()
	ctx, cancel := context.WithTimeoutCause(context.Background(), *timeout, errors.New("not at the end in time"))
	defer cancel()
	scope := &pb.Scope{Resource: *resource, LabelSelector: *selector}
	over := func(seen int, _ uint64) bool { return seen >= *events }
	if *toRevision {
		over = readRevision()
	}
	if err := follow(ctx, *server, own, scope, over); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// readRevision tells whether the revision has been read, and is reached.
func readRevision() func(int, uint64) bool {
	var wanted atomic.Uint64
	go func() {
		var read uint64
		if _, err := fmt.Scan(&read); err == nil {
			wanted.Store(read)
		}
	}()
	return func(_ int, at uint64) bool { return wanted.Load() > 0 && at >= wanted.Load() }
}

// follow follows until a mark after so many changes and at this revision is the last.
func follow(
	ctx context.Context, server string, own informerd.Credentials, scope *pb.Scope, over func(int, uint64) bool,
) error {
	options, err := own.Options()
	if err != nil {
		return err
	}
	client, err := informerd.New(server, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	out := json.NewEncoder(os.Stdout)
	list, err := client.List(ctx, &pb.ListObjectsRequest{Scope: scope, View: pb.View_VIEW_METADATA})
	if err != nil {
		return err
	}
	if err := out.Encode(line{What: "list", Revision: revision(list.Freshness)}); err != nil {
		return err
	}
	mirror, events := list.Mirror(), 0
	request := &pb.WatchObjectsRequest{
		Scope: scope, View: pb.View_VIEW_METADATA, Token: list.Token, BookmarkInterval: durationpb.New(time.Second),
	}
	for event, err := range client.Watch(ctx, request) {
		if err != nil {
			return err
		}
		for _, change := range mirror.Apply(event) {
			events++
			it := change.New
			if change.Type == informerd.Deleted {
				it = change.Old
			}
			err = errors.Join(err, out.Encode(line{
				What: "change", Type: change.Type.String(), Key: change.Key.String(), UID: it.GetUid(),
				ResourceVersion: it.GetResourceVersion(),
			}))
		}
		switch event.Type {
		case informerd.Reconnecting:
			err = errors.Join(err, out.Encode(line{What: "cut", Reason: event.Err.Error()}))
		case informerd.ResetBegin:
			err = errors.Join(err, out.Encode(line{What: "reset", Reason: event.Reason}))
		}
		if err != nil {
			return err
		}
		if len(event.Token) > 0 && over(events, revision(event.Freshness)) {
			end := line{What: "end", Revision: revision(event.Freshness), Objects: map[string]held{}}
			for key, it := range mirror.All() {
				end.Objects[key.String()] = held{it.GetUid(), it.GetResourceVersion()}
			}
			return out.Encode(end)
		}
	}
	return errors.New("the watch is over")
}

func revision(freshness *pb.Freshness) uint64 {
	if positions := freshness.GetPositions(); len(positions) > 0 {
		return positions[0].GetRevision()
	}
	return 0
}
