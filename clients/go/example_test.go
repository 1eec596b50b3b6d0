package informerd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// server stands in for `informerd serve`: it has one pod, and a Deployment that becomes ready.
type server struct {
	pb.UnimplementedCacheServiceServer
	pb.UnimplementedReadinessServiceServer
}

func (server) WatchObjects(_ *pb.WatchObjectsRequest, stream grpc.ServerStreamingServer[pb.WatchObjectsResponse]) error {
	live := &pb.Freshness{State: pb.KindState_KIND_STATE_LIVE}
	for _, message := range []*pb.WatchObjectsResponse{
		{Mark: &pb.Mark{Type: pb.MarkType_MARK_TYPE_RESET, Reason: "INITIAL", Freshness: live}},
		{Events: []*pb.Event{{Type: pb.EventType_EVENT_TYPE_UPSERT, Namespace: "shop", Name: "web-0", Uid: "1"}}},
		{Mark: &pb.Mark{Type: pb.MarkType_MARK_TYPE_RESET_END, Token: []byte("1"), Freshness: live}},
	} {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func (server) WaitReadiness(
	request *pb.WaitReadinessRequest, stream grpc.ServerStreamingServer[pb.WaitReadinessResponse],
) error {
	target := request.GetTargets()[0].GetTarget()
	missing := &pb.MissingTarget{Target: target, Reason: "LessUpdated", Message: "1 of 3 pods is of the new template"}
	if err := stream.Send(&pb.WaitReadinessResponse{Missing: []*pb.MissingTarget{missing}}); err != nil {
		return err
	}
	return stream.Send(&pb.WaitReadinessResponse{
		Outcome:  pb.WaitOutcome_WAIT_OUTCOME_SATISFIED,
		Verdicts: []*pb.Verdict{{Target: target, State: pb.ReadinessState_READINESS_STATE_READY}},
	})
}

func start() (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	it := grpc.NewServer()
	pb.RegisterCacheServiceServer(it, server{})
	pb.RegisterReadinessServiceServer(it, server{})
	go func() { _ = it.Serve(listener) }()
	return listener.Addr().String(), it.Stop
}

func ExampleClient_Watch() {
	address, stop := start()
	defer stop()

	client, err := informerd.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	var pods informerd.Mirror[*pb.Object]
	request := &pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "pods"}}
	for event, err := range client.Watch(context.Background(), request) {
		if err != nil {
			log.Fatal(err)
		}
		for _, change := range pods.Apply(event) {
			fmt.Println(change.Type, change.Key)
		}
		if pods.Complete() {
			break
		}
	}
	// Output: Added shop/web-0
}

func ExampleClient_FollowObjects() {
	address, stop := start()
	defer stop()

	client, err := informerd.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	pods := client.FollowObjects(&pb.WatchObjectsRequest{Scope: &pb.Scope{Resource: "pods"}})
	pods.Fallback.Interval = 10 * time.Second
	pods.Fallback.Poll = func(ctx context.Context) (informerd.Snapshot[*pb.Object], error) {
		// Ask the API server, as before there was informerd.
		return informerd.Snapshot[*pb.Object]{}, errors.New("not needed today")
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = pods.Run(ctx, func(change informerd.Change[*pb.Object]) {
		fmt.Println(change.Type, change.Key, "polling:", pods.Status().Polling)
		cancel()
	})
	fmt.Println(err)
	// Output:
	// Added shop/web-0 polling: false
	// context canceled
}

func ExampleClient_WaitReadiness() {
	address, stop := start()
	defer stop()

	client, err := informerd.New(address)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	target := &pb.Target{Resource: "deployments.apps", Namespace: "shop", Name: "web"}
	verdicts, err := client.WaitReadiness(context.Background(), &pb.WaitReadinessRequest{
		Targets: []*pb.WaitTarget{{Target: target, MinGeneration: 2}},
		WaitFor: pb.WaitFor_WAIT_FOR_READY,
		Timeout: durationpb.New(5 * time.Minute),
	}, func(progress *pb.WaitReadinessResponse) {
		for _, it := range progress.GetMissing() {
			fmt.Println(it.GetReason(), it.GetMessage())
		}
	})
	var missing *informerd.WaitError
	if errors.As(err, &missing) {
		log.Fatal("not in time: ", missing)
	}
	fmt.Println(verdicts[0].GetState())
	// Output:
	// LessUpdated 1 of 3 pods is of the new template
	// READINESS_STATE_READY
}
