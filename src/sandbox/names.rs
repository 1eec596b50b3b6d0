//! What names, labels and the like must look like, in the API server's words.

/// Why a text is no such name; `None` if it is one.
pub type Objection = Option<String>;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const OLD_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
    and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
    for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A DNS subdomain, as most names are.
pub fn subdomain(text: &str) -> Objection {
    too_long(text, 253).or_else(|| (!text.split('.').all(is_label)).then(|| SUBDOMAIN.to_owned()))
}

/// A DNS label: namespaces, containers.
pub fn label(text: &str) -> Objection {
    too_long(text, 63).or_else(|| (!is_label(text)).then(|| LABEL.to_owned()))
}

/// A DNS label of the older kind, which begins with a letter: services.
pub fn old_label(text: &str) -> Objection {
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    too_long(text, 63).or_else(|| (!begins || !is_label(text)).then(|| OLD_LABEL.to_owned()))
}

/// The value of a label.
pub fn label_value(text: &str) -> Objection {
    too_long(text, 63).or_else(|| (!text.is_empty() && !is_word(text)).then(|| VALUE.to_owned()))
}

/// The key of a label or annotation: a name, perhaps with a DNS subdomain and a slash before it.
pub fn qualified(text: &str) -> Objection {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(wrong) = prefix.and_then(subdomain) {
        return Some(format!("prefix part {wrong}"));
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if let Some(long) = too_long(name, 63) {
        return Some(format!("name part {long}"));
    }
    (!is_word(name)).then(|| QUALIFIED.to_owned())
}

fn too_long(text: &str, most: usize) -> Objection {
    (text.len() > most).then(|| format!("must be no more than {most} characters"))
}

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_word(text: &str) -> bool {
    let outer = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| outer(c) || matches!(c, '-' | '_' | '.');
    text.chars().all(inner) && text.starts_with(outer) && text.ends_with(outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_are_none() {
        for good in ["a", "web-0", "a.b", "0", "node-1.example.com"] {
            assert_eq!(subdomain(good), None, "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "é"] {
            assert!(subdomain(bad).is_some(), "{bad:?}");
        }
        assert!(label("a.b").is_some() && label("0a").is_none());
        assert!(old_label("0a").is_some() && old_label("a0").is_none());
        let long = "a".repeat(64);
        assert_eq!(
            label(&long).as_deref(),
            Some("must be no more than 63 characters")
        );
        assert!(subdomain(&long).is_none());
    }

    #[test]
    fn labels_have_keys_and_values() {
        for good in ["app", "app.kubernetes.io/name", "a_B.c"] {
            assert_eq!(qualified(good), None, "{good}");
        }
        for bad in ["", "a/", "/a", "a/b/c", "-a", "a b", "A.io/b"] {
            assert!(qualified(bad).is_some(), "{bad:?}");
        }
        assert!(label_value("").is_none() && label_value("v1.2_x").is_none());
        assert!(label_value("a b").is_some() && label_value("-").is_some());
    }
}
