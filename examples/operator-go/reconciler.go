package main

import (
	"context"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// clusters is the kind as informerd names it.
	clusters = "aerospikeclusters.acko.io"
	// ours selects the pods and StatefulSets of all clusters; the instance label says of which.
	ours     = "app.kubernetes.io/name=aerospike-cluster"
	instance = "app.kubernetes.io/instance"
)

var clusterKind = schema.GroupVersionKind{Group: "acko.io", Version: "v1alpha1", Kind: "AerospikeCluster"}

// clusterList is an empty list of clusters to read into.
func clusterList() *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(clusterKind.GroupVersion().WithKind("AerospikeClusterList"))
	return list
}

// selected restricts a list to what belongs to a cluster.
func selected() client.ListOption {
	name, value, _ := strings.Cut(ours, "=")
	return client.MatchingLabels{name: value}
}

// enqueueCluster asks to reconcile the cluster that a StatefulSet belongs to.
func enqueueCluster() handler.TypedEventHandler[*appsv1.StatefulSet, reconcile.Request] {
	return handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, set *appsv1.StatefulSet) []reconcile.Request {
		return []reconcile.Request{{
			NamespacedName: client.ObjectKey{Namespace: set.Namespace, Name: set.Labels[instance]},
		}}
	})
}

// reconciler does the next step of a rolling restart, where one is due and may be done.
type reconciler struct {
	reader client.Reader
	writer client.Writer
	// safe is who says whether a cluster can do without one of its pods, at the moment.
	safe func() gate
}

// net is for a verdict that did not change, and wakes nobody, though no wait was satisfied.
const net = time.Minute

// Reconcile deletes at most one pod. What wakes it for the next is a change of the verdict, or a poll.
func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	cluster := &unstructured.Unstructured{}
	cluster.SetGroupVersionKind(clusterKind)
	if err := r.reader.Get(ctx, request.NamespacedName, cluster); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	var sets appsv1.StatefulSetList
	var pods corev1.PodList
	of := []client.ListOption{client.InNamespace(request.Namespace), selected(), client.MatchingLabels{instance: request.Name}}
	if err := r.reader.List(ctx, &sets, of...); err != nil {
		return reconcile.Result{}, err
	}
	if err := r.reader.List(ctx, &pods, of...); err != nil {
		return reconcile.Result{}, err
	}
	pod := next(sets.Items, pods.Items)
	if pod == nil {
		return reconcile.Result{}, nil
	}
	logger := log.FromContext(ctx).WithValues("pod", pod.Name)
	if why, err := r.safe().closed(ctx, cluster, pods.Items); err != nil || why != "" {
		logger.Info("not yet", "why", why)
		return reconcile.Result{RequeueAfter: net}, err
	}
	// Only what was looked at: if the copy was old, somebody else has acted, and so have we not.
	seen := client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion}
	err := r.writer.Delete(ctx, pod, seen)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		logger.Info("the pod has changed meanwhile")
		return reconcile.Result{RequeueAfter: time.Second}, nil
	}
	if err == nil {
		logger.Info("restarted")
	}
	return reconcile.Result{}, err
}

// next is the pod to restart: one whose set has a newer template. None where a restart is still under way.
func next(sets []appsv1.StatefulSet, pods []corev1.Pod) *corev1.Pod {
	wanted := map[string]string{}
	size := 0
	for _, set := range sets {
		wanted[set.Name] = set.Status.UpdateRevision
		if set.Spec.Replicas != nil {
			size += int(*set.Spec.Replicas)
		}
		if set.Status.ObservedGeneration < set.Generation {
			return nil
		}
	}
	if len(pods) < size {
		return nil
	}
	pods = slices.SortedFunc(slices.Values(pods), func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	var found *corev1.Pod
	for at := range pods {
		pod := &pods[at]
		if pod.DeletionTimestamp != nil {
			return nil
		}
		owner := ""
		for _, reference := range pod.OwnerReferences {
			if reference.Kind == "StatefulSet" {
				owner = reference.Name
			}
		}
		revision, known := wanted[owner]
		if found == nil && known && pod.Labels[appsv1.ControllerRevisionHashLabelKey] != revision {
			found = pod
		}
	}
	return found
}
