// watcher follows one kind of an informerd and prints what happens as JSON lines, the state that it folded last.
//
//	watcher --server 127.0.0.1:7443 --resource pods --events 100 --cut-after 30
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "informerd.dev/informerd/gen/informerd/v1"
	"stranger/follow"
)

func main() {
	server := flag.String("server", "127.0.0.1:7443", "address of the gRPC port")
	resource := flag.String("resource", "pods", "the kind: pods, deployments.apps")
	namespace := flag.String("namespace", "", "only this namespace")
	selector := flag.String("selector", "", "only objects with these labels: app=web,tier!=db")
	metadata := flag.Bool("metadata", false, "metadata only")
	events := flag.Int("events", 0, "end at the first mark after this many events; 0 goes on")
	cutAfter := flag.Int("cut-after", 0, "close the connection after each so many events; 0 never does")
	timeout := flag.Duration("timeout", time.Minute, "fail when not at the end by then")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument %q: everything is a flag\n", flag.Arg(0))
		os.Exit(2)
	}

	scope := &pb.Scope{Resource: *resource, LabelSelector: *selector}
	if *namespace != "" {
		scope.Namespaces = []string{*namespace}
	}
	view := pb.View_VIEW_FULL
	if *metadata {
		view = pb.View_VIEW_METADATA
	}
	dial := func() (*grpc.ClientConn, error) {
		return grpc.NewClient(*server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), *timeout, errors.New("not at the end in time"))
	defer cancel()
	encoder := json.NewEncoder(os.Stdout)
	err := follow.Run(ctx, dial, follow.Options{
		Scope:    scope,
		View:     view,
		Events:   *events,
		CutAfter: *cutAfter,
		Print: func(line follow.Line) {
			if err := encoder.Encode(line); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
