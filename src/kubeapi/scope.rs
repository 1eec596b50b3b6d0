//! Which objects of a kind a request is about, as its path and its selectors say.

use crate::{
    cache::Selection,
    object::{Key, selector::Selector},
};

/// `namespace` is the path's: empty for all, and for what lives in none. A selector that names the only object that
/// there can be narrows it further.
pub(super) fn selection(namespace: &str, namespaced: bool, selector: Selector) -> Selection {
    let namespace = match namespace {
        "" if namespaced => selector.namespace().unwrap_or_default(),
        namespace => namespace,
    };
    let one = selector
        .name()
        .filter(|_| namespaced != namespace.is_empty())
        // A key has no other slash; a name with one is nobody's.
        .filter(|name| !name.contains('/'))
        .map(|name| Key::new(namespace, name));
    let namespaces = match namespace {
        "" => Vec::new(),
        namespace => vec![namespace.to_owned()],
    };
    Selection::new(namespaces, one, selector)
}
