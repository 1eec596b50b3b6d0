package main

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// world is a cluster "db" of three pods in two racks, whose templates have the revision "new".
func world(revisions map[string]string) client.Client {
	labels := map[string]string{"app.kubernetes.io/name": "aerospike-cluster", instance: "db"}
	cluster := &unstructured.Unstructured{}
	cluster.SetGroupVersionKind(clusterKind)
	cluster.SetNamespace("n")
	cluster.SetName("db")
	objects := []client.Object{cluster}
	for rack, size := range map[string]int32{"db-1": 2, "db-2": 1} {
		objects = append(objects, &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: rack, Labels: labels},
			Spec:       appsv1.StatefulSetSpec{Replicas: &size},
			Status:     appsv1.StatefulSetStatus{UpdateRevision: "new"},
		})
	}
	for name, revision := range revisions {
		labels := map[string]string{appsv1.ControllerRevisionHashLabelKey: revision, "app.kubernetes.io/name": "aerospike-cluster", instance: "db"}
		objects = append(objects, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "n", Name: name, UID: "uid", Labels: labels,
				OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: name[:len("db-1")]}},
			},
			Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
		})
	}
	return fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(objects...).Build()
}

type says string

func (s says) closed(context.Context, *unstructured.Unstructured, []corev1.Pod) (string, error) {
	return string(s), nil
}

func left(t *testing.T, api client.Client) map[string]bool {
	t.Helper()
	var pods corev1.PodList
	if err := api.List(t.Context(), &pods); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, pod := range pods.Items {
		names[pod.Name] = true
	}
	return names
}

func reconciled(t *testing.T, api client.Client, open gate) {
	t.Helper()
	it := &reconciler{reader: api, writer: api, safe: func() gate { return open }}
	request := reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "n", Name: "db"}}
	if _, err := it.Reconcile(t.Context(), request); err != nil {
		t.Fatal(err)
	}
}

func TestOnePodIsRestartedAndThenNoneUntilItIsBack(t *testing.T) {
	api := world(map[string]string{"db-1-0": "new", "db-1-1": "old", "db-2-0": "old"})
	for range 3 {
		reconciled(t, api, ownGate{api})
		if left := left(t, api); left["db-1-1"] || len(left) != 2 {
			t.Fatalf("left: %v", left)
		}
	}
}

func TestNothingIsRestartedWhileTheGateIsClosedOrThereIsNothingNew(t *testing.T) {
	api := world(map[string]string{"db-1-0": "old", "db-1-1": "old", "db-2-0": "old"})
	reconciled(t, api, says("migrations"))
	if left := left(t, api); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
	api = world(map[string]string{"db-1-0": "new", "db-1-1": "new", "db-2-0": "new"})
	reconciled(t, api, says(""))
	if left := left(t, api); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
}

func TestThePollersGateIsClosedByAPodThatIsNotReady(t *testing.T) {
	api := world(map[string]string{"db-1-0": "old", "db-1-1": "old", "db-2-0": "old"})
	var pod corev1.Pod
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: "n", Name: "db-2-0"}, &pod); err != nil {
		t.Fatal(err)
	}
	pod.Status.Conditions[0].Status = corev1.ConditionFalse
	if err := api.Status().Update(t.Context(), &pod); err != nil {
		t.Fatal(err)
	}
	reconciled(t, api, ownGate{api})
	if left := left(t, api); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
}
