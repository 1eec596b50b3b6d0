package operator

import (
	"sigs.k8s.io/controller-runtime/pkg/client"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// AsOf is a target of a wait that rests on this very object, as it is here or later: one that a write has returned, or
// that is about to be acted on. Informerd then has no need to ask the API server what there is.
func AsOf(resource string, it client.Object) *pb.WaitTarget {
	return &pb.WaitTarget{
		Target:             &pb.Target{Resource: resource, Namespace: it.GetNamespace(), Name: it.GetName()},
		Uid:                string(it.GetUID()),
		MinGeneration:      it.GetGeneration(),
		MinResourceVersion: it.GetResourceVersion(),
	}
}
