package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Reader is a client.Reader of informerd's cache. What informerd cannot answer well, its Fallback does.
//
// It reads typed objects, unstructured ones and PartialObjectMetadata. Of options it knows namespace, label and field
// selectors, and a resource version in Raw: then it waits for that one or a later one. Limit is not heeded: lists are
// of one snapshot, and whole.
type Reader struct {
	Client *informerd.Client
	// A manager's GetScheme() and GetRESTMapper().
	Scheme *runtime.Scheme
	Mapper meta.RESTMapper
	// Asked where informerd is out of reach, fails, or is not known to be current; a manager's GetAPIReader(), for
	// example. Without one errors are returned, and an answer's age is not looked at.
	Fallback client.Reader
	// How old the proof may be that an answer is current; 150 s where not set. See [informerd.Fallback].
	MaxAge time.Duration
}

var _ client.Reader = &Reader{}

// errOld says that an answer is not good enough.
var errOld = errors.New("informerd is not known to be current")

// Get reads one object.
func (r *Reader) Get(ctx context.Context, key client.ObjectKey, into client.Object, options ...client.GetOption) error {
	err := r.get(ctx, key, into, options)
	if r.Fallback == nil || err == nil || apierrors.IsNotFound(err) || ctx.Err() != nil {
		return err
	}
	return r.Fallback.Get(ctx, key, into, options...)
}

func (r *Reader) get(ctx context.Context, key client.ObjectKey, into client.Object, options []client.GetOption) error {
	asked := (&client.GetOptions{}).ApplyOptions(options)
	gvk, scope, err := r.scope(into, key.Namespace)
	if err != nil {
		return err
	}
	scope.Name = key.Name
	request := &pb.GetObjectRequest{Scope: scope, View: view(into)}
	if asked.Raw != nil {
		request.MinResourceVersion = least(asked.Raw.ResourceVersion)
	}
	reply, err := r.Client.Get(ctx, request)
	if informerd.IsNotFound(err) {
		if err := r.missing(ctx, request); err != nil {
			return err
		}
		resource, _, _ := strings.Cut(scope.GetResource(), ".")
		return apierrors.NewNotFound(schema.GroupResource{Group: gvk.Group, Resource: resource}, key.Name)
	}
	if err != nil {
		return err
	}
	if reply.GetObject().GetStale() || !r.current(reply.GetFreshness()) {
		return errOld
	}
	return read(reply.GetObject(), gvk, into)
}

// missing reports whether it is known well that there is no such object. That reply says nothing of its age, and an
// empty list does.
func (r *Reader) missing(ctx context.Context, request *pb.GetObjectRequest) error {
	if r.Fallback == nil {
		return nil
	}
	list, err := r.Client.List(ctx, &pb.ListObjectsRequest{Scope: request.GetScope(), View: pb.View_VIEW_KEYS})
	switch {
	case err != nil:
		return err
	case len(list.Objects) > 0 || !r.current(list.Freshness):
		return errOld
	}
	return nil
}

// List reads all objects of a scope.
func (r *Reader) List(ctx context.Context, into client.ObjectList, options ...client.ListOption) error {
	err := r.list(ctx, into, options)
	if r.Fallback == nil || err == nil || ctx.Err() != nil {
		return err
	}
	return r.Fallback.List(ctx, into, options...)
}

func (r *Reader) list(ctx context.Context, into client.ObjectList, options []client.ListOption) error {
	asked := (&client.ListOptions{}).ApplyOptions(options)
	if asked.Continue != "" {
		return errors.New("informerd's lists have no continuation: they are whole")
	}
	gvk, scope, err := r.scope(into, asked.Namespace)
	if err != nil {
		return err
	}
	request := &pb.ListObjectsRequest{Scope: scope, View: view(into)}
	if asked.LabelSelector != nil {
		scope.LabelSelector = asked.LabelSelector.String()
	}
	if asked.FieldSelector != nil {
		scope.FieldSelector = asked.FieldSelector.String()
	}
	if asked.Raw != nil {
		request.MinResourceVersion = least(asked.Raw.ResourceVersion)
	}
	list, err := r.Client.List(ctx, request)
	if err != nil {
		return err
	}
	if !r.current(list.Freshness) {
		return errOld
	}
	items := make([]runtime.Object, 0, len(list.Objects))
	for _, it := range list.Objects {
		item, err := r.item(into, gvk)
		if err != nil {
			return err
		}
		if it.GetStale() && r.Fallback != nil {
			return errOld
		}
		if err := read(it, gvk, item); err != nil {
			return err
		}
		items = append(items, item)
	}
	if err := meta.SetList(into, items); err != nil {
		return err
	}
	into.SetResourceVersion(revision(list.Freshness))
	into.SetContinue("")
	return nil
}

// scope names the kind of an object or a list as informerd does.
func (r *Reader) scope(of runtime.Object, namespace string) (schema.GroupVersionKind, *pb.Scope, error) {
	gvk, err := apiutil.GVKForObject(of, r.Scheme)
	if err != nil {
		return gvk, nil, err
	}
	if _, isList := of.(client.ObjectList); isList {
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
	}
	mapping, err := r.Mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return gvk, nil, err
	}
	scope := &pb.Scope{Resource: mapping.Resource.GroupResource().String()}
	if namespace != "" && mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		scope.Namespaces = []string{namespace}
	}
	return gvk, scope, nil
}

// item is a new object for a list.
func (r *Reader) item(list client.ObjectList, gvk schema.GroupVersionKind) (client.Object, error) {
	switch list.(type) {
	case *metav1.PartialObjectMetadataList:
		return &metav1.PartialObjectMetadata{}, nil
	case runtime.Unstructured:
		return &unstructured.Unstructured{}, nil
	}
	item, err := r.Scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	return asObject(item)
}

// current reports whether an answer is good enough to do without the fallback.
func (r *Reader) current(freshness *pb.Freshness) bool {
	maxAge := r.MaxAge
	if maxAge <= 0 {
		maxAge = informerd.DefaultMaxAge
	}
	return r.Fallback == nil || freshness.GetAgeUnproven() || freshness.GetAge().AsDuration() <= maxAge
}

// read decodes an object that has to be of this very version of its kind.
func read(it *pb.Object, gvk schema.GroupVersionKind, into client.Object) error {
	if err := decode(it, into); err != nil {
		return err
	}
	if got := into.GetObjectKind().GroupVersionKind(); got != gvk {
		return fmt.Errorf("informerd watches %v, not %v", got, gvk)
	}
	return nil
}

// view is how much is needed of what is read into this.
func view(into runtime.Object) pb.View {
	switch into.(type) {
	case *metav1.PartialObjectMetadata, *metav1.PartialObjectMetadataList:
		return pb.View_VIEW_METADATA
	}
	return pb.View_VIEW_FULL
}

// least reads a resource version as "not older than": 0 is any.
func least(version string) string {
	if version == "0" {
		return ""
	}
	return version
}

// revision is where a list stands; of several shards the one that is furthest behind.
func revision(freshness *pb.Freshness) string {
	positions := freshness.GetPositions()
	if len(positions) == 0 || freshness.GetUnordered() {
		return ""
	}
	furthest := slices.MinFunc(positions, func(a, b *pb.ShardPosition) int {
		return int(int64(a.GetRevision()) - int64(b.GetRevision()))
	})
	return strconv.FormatUint(furthest.GetRevision(), 10)
}
