package operator

import (
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// blank is a new object of the type.
func blank[object client.Object]() (object, error) {
	var none object
	kind := reflect.TypeFor[object]()
	if kind.Kind() != reflect.Pointer {
		return none, fmt.Errorf("%v is not a type to decode into: take a pointer to a struct", kind)
	}
	return reflect.New(kind.Elem()).Interface().(object), nil
}

func decode(it *pb.Object, into client.Object) error {
	if len(it.GetObject()) > 0 {
		return json.Unmarshal(it.GetObject(), into)
	}
	// VIEW_KEYS has identity only.
	into.SetNamespace(it.GetNamespace())
	into.SetName(it.GetName())
	into.SetUID(types.UID(it.GetUid()))
	into.SetResourceVersion(it.GetResourceVersion())
	return nil
}

func encode(it client.Object) (*pb.Object, error) {
	encoded, err := json.Marshal(it)
	if err != nil {
		return nil, err
	}
	return &pb.Object{
		Namespace:       it.GetNamespace(),
		Name:            it.GetName(),
		Uid:             string(it.GetUID()),
		ResourceVersion: it.GetResourceVersion(),
		Object:          encoded,
	}, nil
}

func decodeChange[object client.Object](change informerd.Change[*pb.Object]) (informerd.Change[object], error) {
	told := informerd.Change[object]{Type: change.Type, Key: change.Key, Cause: change.Cause, Initial: change.Initial}
	for from, to := range map[*pb.Object]*object{change.Old: &told.Old, change.New: &told.New} {
		if from == nil {
			continue
		}
		it, err := blank[object]()
		if err != nil {
			return told, err
		}
		if err := decode(from, it); err != nil {
			return told, err
		}
		*to = it
	}
	return told, nil
}

// asObject is a list's item as an object.
func asObject(it runtime.Object) (client.Object, error) {
	object, ok := it.(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is not a client.Object", it)
	}
	return object, nil
}
