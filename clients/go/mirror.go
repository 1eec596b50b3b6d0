package informerd

import (
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "informerd.dev/informerd/gen/informerd/v1"
)

// Mirror is what a watch has told so far, folded: a copy of what is watched. The zero Mirror is empty and ready.
//
// Resets are built beside the copy and swapped in when they are complete: nobody sees half of one, and one that is cut
// leaves no trace.
type Mirror[T proto.Message] struct {
	items    map[Key]held[T]
	resets   []reset[T]
	token    []byte
	complete bool
}

// held is an item, and which object of its name it is about.
type held[T any] struct {
	uid  string
	item T
}

// reset is a state under way that will replace what is held of what it covers.
type reset[T any] struct {
	covers []string
	items  map[Key]held[T]
}

// ChangeType says what a [Change] is.
type ChangeType int

const (
	// Added says that the item was not held before.
	Added ChangeType = iota + 1
	// Modified says that another version of it was.
	Modified
	// Deleted says that it is held no more.
	Deleted
)

func (t ChangeType) String() string {
	return [...]string{"", "Added", "Modified", "Deleted"}[t]
}

// Change is what became different in a copy. An object that takes the place of another one of its name (another uid)
// is a Deleted and an Added.
type Change[T any] struct {
	Type ChangeType
	Key  Key
	// What was held, unless Added; and what is now, unless Deleted.
	Old, New T
	// Of Deleted: why. VANISHED where it was just missing in a complete state.
	Cause pb.DeleteCause
	// Of Added: part of the first complete state.
	Initial bool
}

// Apply folds one event in, and tells what that changed. All events of a watch must come, in order.
func (m *Mirror[T]) Apply(event Event[T]) []Change[T] {
	if m.items == nil {
		m.items = map[Key]held[T]{}
	}
	if len(event.Token) > 0 {
		m.token = event.Token
	}
	switch event.Type {
	case Upsert:
		it := held[T]{event.UID, event.Item}
		if reset := m.resetOf(event.Key); reset != nil {
			reset.items[event.Key] = it
			return nil
		}
		return m.upsert(event.Key, it)
	case Delete:
		if reset := m.resetOf(event.Key); reset != nil {
			delete(reset.items, event.Key)
			return nil
		}
		// Only the object with this uid: a repeated delete must not take its successor of the same name.
		if old, exists := m.items[event.Key]; exists && old.uid == event.UID {
			delete(m.items, event.Key)
			return []Change[T]{{Type: Deleted, Key: event.Key, Old: old.item, Cause: event.Cause}}
		}
	case ResetBegin:
		m.resets = slices.DeleteFunc(m.resets, func(it reset[T]) bool { return slices.Equal(it.covers, event.Covers) })
		m.resets = append(m.resets, reset[T]{event.Covers, map[Key]held[T]{}})
	case ResetEnd:
		return m.swap(event.Covers)
	case Reconnecting:
		m.resets = nil
	}
	return nil
}

// Mirror is a copy that begins with a list, to be continued by a watch from its token.
func (l *ObjectList) Mirror() *Mirror[*pb.Object] {
	mirror := &Mirror[*pb.Object]{items: map[Key]held[*pb.Object]{}, token: l.Token, complete: true}
	for _, it := range l.Objects {
		mirror.items[Key{Namespace: it.GetNamespace(), Name: it.GetName()}] = held[*pb.Object]{it.GetUid(), it}
	}
	return mirror
}

// Mirror is a copy that begins with a list, to be continued by a watch from its token.
func (l *VerdictList) Mirror() *Mirror[*pb.Verdict] {
	mirror := &Mirror[*pb.Verdict]{items: map[Key]held[*pb.Verdict]{}, token: l.Token, complete: true}
	for _, it := range l.Verdicts {
		mirror.items[KeyOf(it.GetTarget())] = held[*pb.Verdict]{it.GetUid(), it}
	}
	return mirror
}

// Get is what is held of a key.
func (m *Mirror[T]) Get(key Key) (T, bool) {
	it, exists := m.items[key]
	return it.item, exists
}

// All gives what is held, in no order.
func (m *Mirror[T]) All() iter.Seq2[Key, T] {
	return func(yield func(Key, T) bool) {
		for key, it := range m.items {
			if !yield(key, it.item) {
				return
			}
		}
	}
}

// Len is how many items are held.
func (m *Mirror[T]) Len() int {
	return len(m.items)
}

// Complete reports whether the initial state has been complete once.
func (m *Mirror[T]) Complete() bool {
	return m.complete
}

// Token is where a watch resumes that continues this copy; nil before the first one was told.
func (m *Mirror[T]) Token() []byte {
	return m.token
}

func (m *Mirror[T]) upsert(key Key, it held[T]) []Change[T] {
	old, exists := m.items[key]
	m.items[key] = it
	switch {
	case exists && old.uid == it.uid && proto.Equal(old.item, it.item):
		return nil
	case exists:
		return between(key, &old, &it, !m.complete)
	}
	return between(key, nil, &it, !m.complete)
}

// between is what has changed from old to new, which differ; nil is nothing.
func between[T any](key Key, old, new *held[T], initial bool) []Change[T] {
	switch {
	case old == nil && new == nil:
		return nil
	case old == nil:
		return []Change[T]{{Type: Added, Key: key, New: new.item, Initial: initial}}
	case new == nil:
		return []Change[T]{{Type: Deleted, Key: key, Old: old.item, Cause: pb.DeleteCause_DELETE_CAUSE_VANISHED}}
	case old.uid == new.uid:
		return []Change[T]{{Type: Modified, Key: key, Old: old.item, New: new.item}}
	}
	return []Change[T]{
		{Type: Deleted, Key: key, Old: old.item, Cause: pb.DeleteCause_DELETE_CAUSE_REPLACED},
		{Type: Added, Key: key, New: new.item},
	}
}

// swap puts a complete reset in the place of what was held of what it covers.
func (m *Mirror[T]) swap(covers []string) (changes []Change[T]) {
	at := slices.IndexFunc(m.resets, func(it reset[T]) bool { return slices.Equal(it.covers, covers) })
	if at < 0 {
		return nil
	}
	reset := m.resets[at]
	m.resets = slices.Delete(m.resets, at, at+1)
	for key, old := range m.items {
		if _, still := reset.items[key]; !still && reset.covered(key) {
			delete(m.items, key)
			changes = append(changes, between(key, &old, nil, false)...)
		}
	}
	for key, it := range reset.items {
		changes = append(changes, m.upsert(key, it)...)
	}
	m.complete = m.complete || len(m.resets) == 0
	return changes
}

// resetOf is the reset under way that a key belongs to, if there is one.
func (m *Mirror[T]) resetOf(key Key) *reset[T] {
	for at := range m.resets {
		if m.resets[at].covered(key) {
			return &m.resets[at]
		}
	}
	return nil
}

// covered reports whether the reset speaks of the key: by its namespace, or for verdicts by its kind.
func (r *reset[T]) covered(key Key) bool {
	part := key.Namespace
	if key.Resource != "" {
		part = key.Resource
	}
	return len(r.covers) == 0 || slices.Contains(r.covers, part)
}
