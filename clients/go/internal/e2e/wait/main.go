// wait waits until a target is ready, and prints as JSON lines what is missing and how it ended. It is run by tests.
//
//	wait --server 127.0.0.1:7443 --resource pods --namespace default --name web-0 --timeout 30s
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// line is one thing that happened. Fields that do not apply are absent.
type line struct {
	// "missing", "ready" or "late".
	What            string `json:"what"`
	UID             string `json:"uid,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	Reason          string `json:"reason,omitempty"`
}

func main() {
	server := flag.String("server", "127.0.0.1:7443", "address of the gRPC port")
	var target pb.Target
	flag.StringVar(&target.Resource, "resource", "pods", "the kind")
	flag.StringVar(&target.Namespace, "namespace", "default", "its namespace")
	flag.StringVar(&target.Name, "name", "", "its name")
	version := flag.String("version", "", "not a verdict on what was before this resourceVersion")
	timeout := flag.Duration("timeout", time.Minute, "how long to wait")
	flag.Parse()
	if err := wait(*server, &pb.WaitTarget{Target: &target, MinResourceVersion: *version}, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func wait(server string, target *pb.WaitTarget, timeout time.Duration) error {
	client, err := informerd.New(server)
	if err != nil {
		return err
	}
	defer client.Close()
	out := json.NewEncoder(os.Stdout)
	request := &pb.WaitReadinessRequest{Targets: []*pb.WaitTarget{target}, Timeout: durationpb.New(timeout)}
	verdicts, err := client.WaitReadiness(context.Background(), request, func(progress *pb.WaitReadinessResponse) {
		for _, it := range progress.GetMissing() {
			_ = out.Encode(line{What: "missing", Reason: it.GetReason()})
		}
	})
	var late *informerd.WaitError
	switch {
	case errors.As(err, &late):
		return out.Encode(line{What: "late", Reason: late.Error()})
	case err != nil:
		return err
	}
	it := verdicts[0]
	return out.Encode(line{What: "ready", UID: it.GetUid(), ResourceVersion: it.GetResourceVersion()})
}
