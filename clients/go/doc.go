// Package informerd is a client of informerd, the daemon that watches each kind of a Kubernetes cluster once and serves
// that one cache, and verdicts on what is ready, over gRPC.
//
//   - [Client] reads single objects, lists and verdicts, and waits for readiness.
//   - [Client.Watch] and [Client.WatchVerdicts] are watches that last: they resume after cuts, and what they have told
//     is never taken back.
//   - [Mirror] folds a watch into a copy of what is watched, and tells what changed.
//   - [Follower] does so for as long as informerd can be relied on, and by a poll of your own while it cannot.
//
// Requests are the protos' own messages (package [informerd.dev/informerd/gen/informerd/v1]): a second set of types
// would only have to be kept equal to them.
package informerd
