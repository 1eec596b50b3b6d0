// Wire tells how the types of Kubernetes's API are written in protobuf, which Go clients send and nobody else knows:
// the table that the sandbox reads them by (src/sandbox/types.txt), and with -objects one object of each
// kind with every field filled, in both forms, to hold the reading against.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// What clients send to the sandbox. DeleteOptions is of every group.
var roots = []struct {
	apiVersion string
	object     runtime.Object
}{
	{"v1", &corev1.Namespace{}},
	{"v1", &corev1.Node{}},
	{"v1", &corev1.Pod{}},
	{"v1", &corev1.Service{}},
	{"v1", &corev1.ConfigMap{}},
	{"v1", &corev1.Secret{}},
	{"v1", &corev1.Event{}},
	{"v1", &corev1.Binding{}},
	{"v1", &metav1.DeleteOptions{}},
	{"events.k8s.io/v1", &eventsv1.Event{}},
	{"discovery.k8s.io/v1", &discoveryv1.EndpointSlice{}},
	{"coordination.k8s.io/v1", &coordinationv1.Lease{}},
	{"apps/v1", &appsv1.Deployment{}},
	{"apps/v1", &appsv1.ReplicaSet{}},
	{"apps/v1", &appsv1.StatefulSet{}},
	{"policy/v1", &policyv1.Eviction{}},
	{"autoscaling/v1", &autoscalingv1.Scale{}},
	{"authentication.k8s.io/v1", &authenticationv1.SelfSubjectReview{}},
	{"authorization.k8s.io/v1", &authorizationv1.SelfSubjectAccessReview{}},
	{"authorization.k8s.io/v1", &authorizationv1.SelfSubjectRulesReview{}},
}

// Types whose JSON is not that of their fields.
var special = map[reflect.Type]string{
	reflect.TypeFor[metav1.Time]():                 "time",
	reflect.TypeFor[metav1.MicroTime]():            "microtime",
	reflect.TypeFor[resource.Quantity]():           "quantity",
	reflect.TypeFor[intstr.IntOrString]():          "intorstring",
	reflect.TypeFor[metav1.FieldsV1]():             "json",
	reflect.TypeFor[authenticationv1.ExtraValue](): "strings",
	reflect.TypeFor[runtime.RawExtension]():        "json",
}

func main() {
	objects := flag.Bool("objects", false, "print objects instead of the table")
	flag.Parse()
	print := printTable
	if *objects {
		print = printObjects
	}
	if err := print(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func kind(object runtime.Object) string {
	return reflect.TypeOf(object).Elem().Name()
}

// name is that of a message: `core.Pod`.
func name(of reflect.Type) string {
	parts := strings.Split(of.PkgPath(), "/")
	return parts[len(parts)-2] + "." + of.Name()
}

func printTable() error {
	known := map[reflect.Type]bool{}
	for _, root := range roots {
		of := reflect.TypeOf(root.object).Elem()
		fmt.Printf("%s %s %s\n", root.apiVersion, kind(root.object), name(of))
		if err := find(of, known); err != nil {
			return err
		}
	}
	var messages []reflect.Type
	for of := range known {
		messages = append(messages, of)
	}
	slices.SortFunc(messages, func(a, b reflect.Type) int { return strings.Compare(name(a), name(b)) })
	for _, of := range messages {
		fmt.Println("\n" + name(of))
		if err := eachField(of, func(field field) error {
			fmt.Println(field)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// find notes a message and those that it is made of.
func find(of reflect.Type, known map[reflect.Type]bool) error {
	if known[of] {
		return nil
	}
	known[of] = true
	return eachField(of, func(field field) error {
		if field.message == nil {
			return nil
		}
		return find(field.message, known)
	})
}

type field struct {
	number int
	// As in JSON; `-` where its own fields stand in its place.
	name string
	// `[]` for a list, `{}` for a map by strings.
	many string
	of   string
	// Where it is one.
	message reflect.Type
	// In JSON even where it is empty.
	kept bool
}

func (f field) String() string {
	kept := ""
	if f.kept {
		kept = "!"
	}
	return fmt.Sprintf("%d %s %s%s%s", f.number, f.name, f.many, f.of, kept)
}

func eachField(of reflect.Type, do func(field) error) error {
	for at := range of.NumField() {
		own := of.Field(at)
		tag := strings.Split(own.Tag.Get("protobuf"), ",")
		if len(tag) < 2 {
			// The type of an object is written beside it.
			if own.Type == reflect.TypeFor[metav1.TypeMeta]() {
				continue
			}
			return fmt.Errorf("%s.%s is not in protobuf", name(of), own.Name)
		}
		number, err := strconv.Atoi(tag[1])
		if err != nil {
			return err
		}
		json := strings.Split(own.Tag.Get("json"), ",")
		field := field{number: number, name: json[0]}
		if field.name == "" {
			field.name = "-"
		}
		has := func(option string) bool { return slices.Contains(json[1:], option) }
		inner := own.Type
		switch {
		case inner.Kind() == reflect.Pointer:
			inner, field.kept = inner.Elem(), true
		case inner.Kind() == reflect.Struct:
			field.kept = !has("omitzero")
		default:
			field.kept = !has("omitempty")
		}
		if inner.Kind() == reflect.Map {
			if inner.Key().Kind() != reflect.String {
				return fmt.Errorf("%s.%s is not a map by strings", name(of), own.Name)
			}
			field.many, inner = "{}", inner.Elem()
		} else if inner.Kind() == reflect.Slice && inner.Elem().Kind() != reflect.Uint8 {
			field.many, inner = "[]", inner.Elem()
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if field.of = special[inner]; field.of == "" {
			switch inner.Kind() {
			case reflect.Struct:
				field.of, field.message = name(inner), inner
			case reflect.String:
				field.of = "string"
			case reflect.Bool:
				field.of = "bool"
			case reflect.Int, reflect.Int32, reflect.Int64:
				field.of = "int"
			case reflect.Slice:
				if inner.Elem().Kind() != reflect.Uint8 {
					return fmt.Errorf("%s.%s is a list of lists", name(of), own.Name)
				}
				field.of = "bytes"
			default:
				return fmt.Errorf("%s.%s is a %s", name(of), own.Name, inner)
			}
		}
		if err := do(field); err != nil {
			return err
		}
	}
	return nil
}

func printObjects() error {
	out := json.NewEncoder(os.Stdout)
	encoder := protobuf.NewSerializer(nil, nil)
	for _, root := range roots {
		for _, filled := range []bool{false, true} {
			object := reflect.New(reflect.TypeOf(root.object).Elem())
			if filled {
				(&filler{}).fill(object.Elem())
			}
			typed := object.Interface().(runtime.Object)
			gvk := schema.FromAPIVersionAndKind(root.apiVersion, kind(root.object))
			typed.GetObjectKind().SetGroupVersionKind(gvk)
			var bytes strings.Builder
			if err := encoder.Encode(typed, &bytes); err != nil {
				return err
			}
			if err := out.Encode(map[string]any{"protobuf": []byte(bytes.String()), "json": typed}); err != nil {
				return err
			}
		}
	}
	return nil
}

// filler fills everything with something, and nothing twice with the same.
type filler struct{ next int64 }

func (f *filler) fill(value reflect.Value) {
	f.next++
	switch value.Type() {
	case reflect.TypeFor[metav1.TypeMeta]():
		return
	case reflect.TypeFor[metav1.Time]():
		value.Set(reflect.ValueOf(metav1.Unix(1e9+f.next, 0)))
		return
	case reflect.TypeFor[metav1.MicroTime]():
		value.Set(reflect.ValueOf(metav1.NewMicroTime(time.Unix(1e9+f.next, f.next*1000))))
		return
	case reflect.TypeFor[resource.Quantity]():
		value.Set(reflect.ValueOf(resource.MustParse(fmt.Sprintf("%dm", f.next))))
		return
	case reflect.TypeFor[intstr.IntOrString]():
		of := intstr.FromInt32(-int32(f.next))
		if f.next%2 == 0 {
			of = intstr.FromString("port")
		}
		value.Set(reflect.ValueOf(of))
		return
	case reflect.TypeFor[metav1.FieldsV1]():
		value.Set(reflect.ValueOf(*metav1.NewFieldsV1(`{"f:a":{}}`)))
		return
	}
	switch value.Kind() {
	case reflect.String:
		value.SetString(fmt.Sprintf("text-%d-é", f.next))
	case reflect.Bool:
		value.SetBool(f.next%2 == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		value.SetInt(f.next * (1 - f.next%2*2))
	case reflect.Pointer:
		value.Set(reflect.New(value.Type().Elem()))
		// Some point to nothing of note, which is not nothing.
		if f.next%5 != 0 {
			f.fill(value.Elem())
		}
	case reflect.Slice:
		if value.Type().Elem().Kind() == reflect.Uint8 {
			value.SetBytes([]byte{0, 255, byte(f.next)})
			return
		}
		value.Set(reflect.MakeSlice(value.Type(), 2, 2))
		f.fill(value.Index(0))
		f.fill(value.Index(1))
	case reflect.Map:
		value.Set(reflect.MakeMap(value.Type()))
		for range 2 {
			key, inner := reflect.New(value.Type().Key()).Elem(), reflect.New(value.Type().Elem()).Elem()
			f.fill(key)
			f.fill(inner)
			value.SetMapIndex(key, inner)
		}
	case reflect.Struct:
		for at := range value.NumField() {
			f.fill(value.Field(at))
		}
	default:
		panic(fmt.Sprintf("cannot fill a %s", value.Type()))
	}
}
