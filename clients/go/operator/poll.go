package operator

import (
	"context"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// List makes polls out of a reader, such as a manager's GetAPIReader(), and a list to read into. Give it the scope that
// the watch has.
func List(
	reader client.Reader, list client.ObjectList, options ...client.ListOption,
) func(context.Context) (informerd.Snapshot[*pb.Object], error) {
	return func(ctx context.Context) (informerd.Snapshot[*pb.Object], error) {
		return poll(ctx, reader, list, options, encode)
	}
}

// Targets makes polls that find a verdict of UNKNOWN for each object of a list, under the full name of its kind
// ("aerospikeclusters.acko.io"). With Fallback.Every that asks to reconcile each of them each time, as a RequeueAfter
// would.
func Targets(
	resource string, reader client.Reader, list client.ObjectList, options ...client.ListOption,
) func(context.Context) (informerd.Snapshot[*pb.Verdict], error) {
	verdict := func(it client.Object) (*pb.Verdict, error) {
		return &pb.Verdict{
			Target: &pb.Target{Resource: resource, Namespace: it.GetNamespace(), Name: it.GetName()},
			State:  pb.ReadinessState_READINESS_STATE_UNKNOWN,
			Reason: "Polled",
			Uid:    string(it.GetUID()),
		}, nil
	}
	return func(ctx context.Context) (informerd.Snapshot[*pb.Verdict], error) {
		return poll(ctx, reader, list, options, verdict)
	}
}

func poll[T proto.Message](
	ctx context.Context, reader client.Reader, list client.ObjectList, options []client.ListOption,
	item func(client.Object) (T, error),
) (snapshot informerd.Snapshot[T], err error) {
	// Polls of an earlier time may not have ended yet.
	list = list.DeepCopyObject().(client.ObjectList)
	if err := reader.List(ctx, list, options...); err != nil {
		return snapshot, err
	}
	snapshot.ResourceVersion = list.GetResourceVersion()
	err = meta.EachListItem(list, func(it runtime.Object) error {
		object, err := asObject(it)
		if err != nil {
			return err
		}
		made, err := item(object)
		snapshot.Items = append(snapshot.Items, made)
		return err
	})
	return snapshot, err
}
