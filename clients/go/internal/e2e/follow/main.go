// follow keeps a copy of one kind by this module's client, and prints as JSON lines what happens to it, the whole of it
// last. It is run by tests that cut its connections.
//
//	follow --server 127.0.0.1:7443 --resource pods --events 100
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

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
	timeout := flag.Duration("timeout", time.Minute, "fail when not at the end by then")
	flag.Parse()
	ctx, cancel := context.WithTimeoutCause(context.Background(), *timeout, errors.New("not at the end in time"))
	defer cancel()
	scope := &pb.Scope{Resource: *resource, LabelSelector: *selector}
	if err := follow(ctx, *server, scope, *events); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func follow(ctx context.Context, server string, scope *pb.Scope, wanted int) error {
	client, err := informerd.New(server)
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
	request := &pb.WatchObjectsRequest{Scope: scope, View: pb.View_VIEW_METADATA, Token: list.Token}
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
		if len(event.Token) > 0 && events >= wanted {
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
