//! What names an object within its kind.
//!
//! One shared string in the form that the API server uses in etcd, so that a key is 16 bytes wherever it
//! stands (three maps and a journal hold it), cloning is a counter, and the order of keys is the order of a
//! Kubernetes LIST.

use std::{fmt, sync::Arc};

/// `namespace/name`, or `name` for a cluster-scoped object. Ordered as the API server lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// An empty `namespace` means cluster-scoped. Neither part may contain a `/` (Kubernetes forbids it; the
    /// decoder checks what comes from outside).
    pub fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() {
            Self(name.into())
        } else {
            let mut text = String::with_capacity(namespace.len() + 1 + name.len());
            text.push_str(namespace);
            text.push('/');
            text.push_str(name);
            Self(text.into())
        }
    }

    /// Empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.0
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// The name without the namespace.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// `namespace/name` or `name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_key_gives_back_its_parts() {
        let namespaced = Key::new("default", "web-0");
        assert_eq!(
            (namespaced.namespace(), namespaced.name()),
            ("default", "web-0")
        );
        let cluster = Key::new("", "node-1");
        assert_eq!((cluster.namespace(), cluster.name()), ("", "node-1"));
    }

    #[test]
    fn keys_of_one_namespace_stand_together() {
        let mut keys = [
            Key::new("a-b", "x"),
            Key::new("a", "z"),
            Key::new("a.b", "y"),
            Key::new("a", "b"),
        ];
        keys.sort();
        let namespaces: Vec<_> = keys.iter().map(Key::namespace).collect();
        assert_eq!(namespaces, ["a-b", "a.b", "a", "a"]);
    }
}
