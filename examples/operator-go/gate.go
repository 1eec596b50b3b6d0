package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"informerd.dev/informerd"
	pb "informerd.dev/informerd/gen/informerd/v1"
	"informerd.dev/informerd/operator"
)

// gate says why a cluster cannot do without one of its pods; empty where it can.
type gate interface {
	closed(ctx context.Context, cluster *unstructured.Unstructured, pods []corev1.Pod) (why string, err error)
}

// ownGate is what the operator did before there was informerd, and does while it is away. Here it looks at whether the
// pods are ready; yours asks the nodes.
type ownGate struct {
	api client.Reader
}

func (g ownGate) closed(ctx context.Context, _ *unstructured.Unstructured, pods []corev1.Pod) (string, error) {
	for _, pod := range pods {
		var now corev1.Pod
		if err := g.api.Get(ctx, client.ObjectKeyFromObject(&pod), &now); err != nil {
			return "", client.IgnoreNotFound(err)
		}
		if now.DeletionTimestamp != nil || !ready(&now) {
			return fmt.Sprintf("pod %s is not ready", pod.Name), nil
		}
	}
	return "", nil
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// verdictGate asks informerd. It waits: a verdict of before the last restart says nothing of the time after it, and a
// wait is answered by what was asked of the nodes after it began only. It is for the cluster and the pods that are acted
// on: the pods that are there now may be others.
type verdictGate struct {
	connection *informerd.Client
}

func (g verdictGate) closed(ctx context.Context, cluster *unstructured.Unstructured, pods []corev1.Pod) (string, error) {
	targets := []*pb.WaitTarget{operator.AsOf(clusters, cluster)}
	for at := range pods {
		targets = append(targets, operator.AsOf("pods", &pods[at]))
	}
	_, err := g.connection.WaitReadiness(ctx, &pb.WaitReadinessRequest{
		Targets: targets,
		WaitFor: pb.WaitFor_WAIT_FOR_SAFE_TO_DISRUPT,
		Timeout: durationpb.New(10 * time.Second),
	}, nil)
	var missing *informerd.WaitError
	if errors.As(err, &missing) {
		return missing.Error(), nil
	}
	return "", err
}
