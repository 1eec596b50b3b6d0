// Package operator is for operators that are built with controller-runtime: sources of events that come from informerd
// ([Objects], [Verdicts]) and a reader of its cache ([Reader]), which go on by the API server while informerd is away.
//
// What informerd serves is pruned (managedFields and the last-applied annotation, and what its configuration says):
// patch, and do not update from such copies.
package operator
