//! What a consumer wants to see of each object: a view, cut further by a mask.
//!
//! Two consumers that see the same have the same [`Projection`], however they wrote it, so that what is encoded
//! for one serves the other.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    Object,
    path::Path,
    rules::{Fate, Node},
    scan::Scan,
};

/// Paths that a mask always keeps.
const IDENTITY: [&[&str]; 6] = [
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "uid"],
    &["metadata", "resourceVersion"],
];

/// Paths that change with every write, whatever else does.
const BOOKKEEPING: [&[&str]; 2] = [
    &["metadata", "resourceVersion"],
    &["metadata", "managedFields"],
];

/// How much of each object is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum View {
    /// Identity only, no content.
    Keys,
    /// apiVersion, kind and metadata.
    Metadata,
    /// All that is cached.
    #[default]
    Full,
}

/// A view and a mask, in normal form. Cheap to clone, and fit to be a cache's key.
#[derive(Clone, Debug)]
pub struct Projection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    view: View,
    /// Sorted, none below another; empty keeps all of the view.
    mask: Box<[Path]>,
    /// `None` where everything is kept or nothing is.
    rules: Option<Node>,
    /// What of that is content: not what changes with every write. Made for the first who compares.
    content: OnceLock<Node>,
}

impl Projection {
    /// Of what the view shows, the paths in `mask` and identity; all of it where the mask is empty.
    pub fn new(view: View, mask: Vec<Path>) -> Self {
        let shown = match view {
            View::Keys => Vec::new(),
            View::Full if mask.is_empty() => Vec::new(),
            View::Full => mask,
            View::Metadata => {
                let metadata = Path::of(&["metadata"]);
                if mask.is_empty() {
                    vec![metadata]
                } else {
                    mask.into_iter()
                        .filter(|path| path.starts_with(&metadata))
                        .collect()
                }
            }
        };
        let masked = view == View::Metadata || !shown.is_empty();
        let mut paths = shown;
        if masked {
            paths.extend(IDENTITY.map(Path::of));
        }
        paths.sort();
        // In this order an ancestor stands directly before all that it covers.
        paths.dedup_by(|path, kept| path.starts_with(kept));
        let rules = masked.then(|| {
            let mut root = Node::new(Fate::Shape);
            paths.iter().for_each(|path| root.keep(path));
            root
        });
        Self(Arc::new(Inner {
            view,
            mask: paths.into(),
            rules,
            content: OnceLock::new(),
        }))
    }

    /// The view.
    pub fn view(&self) -> View {
        self.0.view
    }

    /// The JSON that a consumer is sent of an object: empty for [`View::Keys`]; the cached bytes themselves, not a
    /// copy, where all is kept. Objects and arrays on the way to a masked path stay, as the shape around it.
    pub fn apply(&self, object: &Object) -> Bytes {
        match (self.0.view, &self.0.rules) {
            (View::Keys, _) => Bytes::new(),
            (_, None) => object.json.clone(),
            (_, Some(rules)) => cut(&object.json, rules),
        }
    }

    /// Whether two versions of an object look the same: resourceVersion and managedFields do not count.
    pub fn shows_the_same(&self, one: &Object, other: &Object) -> bool {
        if self.0.view == View::Keys {
            return true;
        }
        let content = self.0.content.get_or_init(|| {
            let mut content = self
                .0
                .rules
                .clone()
                .unwrap_or_else(|| Node::new(Fate::Keep));
            for path in BOOKKEEPING {
                content.drop_at(&Path::of(path));
            }
            content
        });
        cut(&one.json, content) == cut(&other.json, content)
    }
}

impl fmt::Display for Projection {
    /// View and mask in normal form: equal for equal projections, in every process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.view)?;
        self.0.mask.iter().try_for_each(|path| write!(f, " {path}"))
    }
}

/// Empty for what is not an object; the cache holds no such thing.
fn cut(json: &[u8], rules: &Node) -> Bytes {
    let Ok(text) = str::from_utf8(json) else {
        return Bytes::new();
    };
    let mut scan = Scan::new(text, 0);
    if scan.object(rules).is_err() {
        return Bytes::new();
    }
    let mut out = Vec::with_capacity(scan.len() + 2);
    out.push(b'{');
    scan.write(&mut out);
    out.push(b'}');
    out.into()
}

impl Default for Projection {
    /// All of each object.
    fn default() -> Self {
        Self::new(View::Full, Vec::new())
    }
}

impl PartialEq for Projection {
    fn eq(&self, other: &Self) -> bool {
        self.0.view == other.0.view && self.0.mask == other.0.mask
    }
}

impl Eq for Projection {}

impl Hash for Projection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.view.hash(state);
        self.0.mask.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{path::tests::path, tests::object};

    const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5","labels":{"a.b/c":"x","d":"y"}},"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"},{"name":"e"}]},"status":{"phase":"Running"}}"#;
    const IDENTITY: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5""#;

    fn apply(view: View, mask: &[&str]) -> String {
        let mut pod = object("n", "a");
        pod.json = Bytes::from_static(POD.as_bytes());
        let json = Projection::new(view, mask.iter().map(|p| path(p)).collect()).apply(&pod);
        String::from_utf8(json.into()).unwrap()
    }

    #[test]
    fn the_full_view_hands_on_the_cached_bytes_themselves() {
        let mut pod = object("n", "a");
        pod.json = Bytes::from_static(POD.as_bytes());
        assert_eq!(
            Projection::default().apply(&pod).as_ptr(),
            pod.json.as_ptr()
        );
    }

    #[test]
    fn keys_have_no_content() {
        assert_eq!(apply(View::Keys, &[]), "");
        assert_eq!(apply(View::Keys, &[".spec"]), "");
    }

    #[test]
    fn the_metadata_view_is_type_and_metadata() {
        let labels = r#","labels":{"a.b/c":"x","d":"y"}}}"#;
        assert_eq!(apply(View::Metadata, &[]), format!("{IDENTITY}{labels}"));
        assert_eq!(
            apply(View::Metadata, &[".metadata"]),
            format!("{IDENTITY}{labels}")
        );
        assert_eq!(
            apply(View::Metadata, &[".metadata.labels['d']"]),
            format!(r#"{IDENTITY},"labels":{{"d":"y"}}}}}}"#)
        );
        assert_eq!(
            apply(View::Metadata, &[".spec"]),
            format!("{IDENTITY}}}}}"),
            "the view does not show it"
        );
    }

    #[test]
    fn a_mask_keeps_its_paths_and_identity() {
        assert_eq!(
            apply(View::Full, &[".spec.containers[*].image", ".status"]),
            format!(
                r#"{IDENTITY}}},"spec":{{"containers":[{{"image":"i"}},{{}}]}},"status":{{"phase":"Running"}}}}"#
            )
        );
        assert_eq!(
            apply(View::Full, &["metadata.labels['a.b/c']"]),
            format!(r#"{IDENTITY},"labels":{{"a.b/c":"x"}}}}}}"#)
        );
        assert_eq!(
            apply(View::Full, &[".spec.nodeName.x", ".none"]),
            format!("{IDENTITY}}},\"spec\":{{}}}}")
        );
    }

    #[test]
    fn what_a_view_does_not_show_makes_no_difference_to_it() {
        let of = |json: String| Object {
            json: Bytes::from(json),
            ..object("n", "a")
        };
        let before = of(POD.to_owned());
        let written = of(POD.replace(
            r#""resourceVersion":"5""#,
            r#""resourceVersion":"6","managedFields":[{"manager":"m"}]"#,
        ));
        let failed = of(POD.replace("Running", "Failed"));
        let labelled = of(POD.replace(r#""d":"y""#, r#""d":"z""#));
        let same = |view, mask: &[&str], after| {
            let mask = mask.iter().map(|p| path(p)).collect();
            Projection::new(view, mask).shows_the_same(&before, after)
        };
        for view in [View::Keys, View::Metadata, View::Full] {
            assert!(same(view, &[], &written), "{view:?}");
        }
        assert!(same(View::Keys, &[], &failed));
        assert!(same(View::Metadata, &[], &failed));
        assert!(!same(View::Full, &[], &failed));
        assert!(!same(View::Full, &[".status.phase"], &failed));
        assert!(same(View::Full, &[".spec", ".metadata.labels"], &failed));
        assert!(!same(View::Metadata, &[], &labelled));
        assert!(same(
            View::Metadata,
            &[".metadata.labels['a.b/c']"],
            &labelled
        ));
    }

    #[test]
    fn masks_that_mean_the_same_are_the_same() {
        let of =
            |mask: &[&str]| Projection::new(View::Full, mask.iter().map(|p| path(p)).collect());
        assert_eq!(
            of(&[".spec", ".status"]),
            of(&["status", "spec.nodeName", ".spec", ".spec", ".kind"])
        );
        assert_ne!(of(&[".spec"]), of(&[".spec.nodeName"]));
        assert_ne!(of(&[".kind"]), of(&[]), "identity only is not everything");
        assert_ne!(of(&[]), Projection::new(View::Keys, Vec::new()));
        let metadata =
            |mask: &[&str]| Projection::new(View::Metadata, mask.iter().map(|p| path(p)).collect());
        assert_eq!(metadata(&[]), metadata(&[".metadata", ".metadata.labels"]));
        assert_eq!(metadata(&[".spec"]), metadata(&[".kind"]));
        assert_eq!(
            Projection::new(View::Keys, vec![path(".a")]),
            Projection::new(View::Keys, Vec::new())
        );
    }
}
