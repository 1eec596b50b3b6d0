package informerd

import (
	"slices"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// ledger is what a watch has told, in numbers: enough to notice that something was not. Marks carry the digest of what
// informerd holds of the scope (docs/digest.md), and what was told has to add up to it.
type ledger struct {
	// By namespace.
	held   map[string]*account
	resets []openReset
	// whole: all that is held was told here, as it is not where the watch began with a token of its caller's.
	whole bool
	// doubted: it did not agree the last time, and to begin anew again would be of no use.
	doubted bool
}

type openReset struct {
	covers []string
	told   map[string]*account
}

// account is of one namespace.
type account struct {
	entries map[string]entry
	digest  uint64
}

// entry is what an object adds to the digest; its uid as a hash.
type entry struct {
	uid, number uint64
}

// hasDigests reports whether marks can have digests of what a watch is about.
func hasDigests(request *pb.WatchObjectsRequest) bool {
	scope := request.GetScope()
	narrow := scope.GetName() != "" || scope.GetLabelSelector() != "" || scope.GetFieldSelector() != ""
	all := request.GetChanges() == pb.Changes_CHANGES_UNSPECIFIED || request.GetChanges() == pb.Changes_CHANGES_ALL
	return !narrow && all
}

func newLedger() *ledger {
	return &ledger{held: map[string]*account{}}
}

// upsert takes in that an object is told.
func (l *ledger) upsert(key Key, uid, resourceVersion string) {
	told := l.of(key.Namespace)
	of := told[key.Namespace]
	if of == nil {
		of = &account{entries: map[string]entry{}}
		told[key.Namespace] = of
	}
	now := entry{fnv1a(uid), number(key, uid, resourceVersion)}
	of.digest += now.number - of.entries[key.Name].number
	of.entries[key.Name] = now
}

// delete takes in that it is told that an object left; only the one with this uid.
func (l *ledger) delete(key Key, uid string) {
	of := l.of(key.Namespace)[key.Namespace]
	if of == nil {
		return
	}
	if old, exists := of.entries[key.Name]; exists && old.uid == fnv1a(uid) {
		delete(of.entries, key.Name)
		of.digest -= old.number
	}
}

func (l *ledger) begin(covers []string) {
	l.resets = slices.DeleteFunc(l.resets, func(it openReset) bool { return slices.Equal(it.covers, covers) })
	l.resets = append(l.resets, openReset{covers, map[string]*account{}})
}

func (l *ledger) end(covers []string) {
	at := slices.IndexFunc(l.resets, func(it openReset) bool { return slices.Equal(it.covers, covers) })
	if at < 0 {
		return
	}
	reset := l.resets[at]
	l.resets = slices.Delete(l.resets, at, at+1)
	for namespace := range l.held {
		if covered(covers, namespace) {
			delete(l.held, namespace)
		}
	}
	for namespace, of := range reset.told {
		l.held[namespace] = of
	}
	l.whole = l.whole || len(covers) == 0
}

// cut takes in that a reset that was open is void.
func (l *ledger) cut() {
	l.resets = nil
}

// forget takes in that nothing is known of what is held, until it is told anew.
func (l *ledger) forget() {
	l.held, l.resets, l.whole = map[string]*account{}, nil, false
}

// differs reports whether what was told is not what informerd holds, as far as that can be said; and whether it is
// worth to begin anew for it, which it is once, until they have agreed again.
func (l *ledger) differs(freshness *pb.Freshness) (differs, anew bool) {
	if !l.whole || len(l.resets) > 0 {
		return false, false
	}
	compared := false
	for _, position := range freshness.GetPositions() {
		if position.GetHasDigest() {
			compared = true
			differs = differs || l.digest(position.GetNamespace()) != position.GetDigest()
		}
	}
	if !compared {
		return false, false
	}
	anew = differs && !l.doubted
	l.doubted = differs
	return differs, anew
}

// digest is that of a shard's namespace, and of everything where that is empty.
func (l *ledger) digest(namespace string) (sum uint64) {
	if namespace != "" {
		if of := l.held[namespace]; of != nil {
			return of.digest
		}
		return 0
	}
	for _, of := range l.held {
		sum += of.digest
	}
	return sum
}

// of is where an event of this namespace belongs: in a reset under way, or in what is held.
func (l *ledger) of(namespace string) map[string]*account {
	for _, reset := range slices.Backward(l.resets) {
		if covered(reset.covers, namespace) {
			return reset.told
		}
	}
	return l.held
}

func covered(covers []string, namespace string) bool {
	return len(covers) == 0 || slices.Contains(covers, namespace)
}

// number is what an object adds to the digest of its set.
func number(key Key, uid, resourceVersion string) uint64 {
	hash := fnv1a(key.String(), "\x00", uid, "\x00", resourceVersion)
	hash = (hash ^ hash>>33) * 0xff51afd7ed558ccd
	hash = (hash ^ hash>>33) * 0xc4ceb9fe1a85ec53
	return hash ^ hash>>33
}

func fnv1a(parts ...string) uint64 {
	hash := uint64(0xcbf29ce484222325)
	for _, part := range parts {
		for i := range len(part) {
			hash = (hash ^ uint64(part[i])) * 0x100000001b3
		}
	}
	return hash
}
