//! Field selectors: Kubernetes's `spec.nodeName=n1,status.phase!=Failed`, and sets as label selectors have them,
//! `status.phase notin (Failed,Succeeded)`.
//!
//! Values escape `,`, `=` and `\` with a backslash, as Kubernetes has it, and in sets `)` and white space at the
//! ends too. A value that is not set compares as the API server would have it: empty, or the kind's default.

use std::{fmt, str::FromStr};

use super::{super::Key, MAX_TERMS, selectable::Selectable};
use crate::object::{
    Object,
    path::{Path, PathError},
};

/// A field selector as written, of no kind yet. None of its terms selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector(Box<[Term<Path>]>);

/// A field selector tied to the fields of one kind. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BoundFieldSelector(Box<[Term<Value>]>);

/// What one value must be or not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Term<T> {
    of: T,
    negated: bool,
    /// At least one; sorted, each once.
    values: Box<[Box<str>]>,
}

/// Where a value of an object is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Value {
    Name,
    Namespace,
    Field { at: usize, unset: &'static str },
}

/// Why a field selector is refused. Positions are in bytes, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A term does not name a path.
    #[error("the field selector is wrong at position {position}: {source}")]
    Path {
        /// Where the path begins.
        position: usize,
        /// What is wrong with it.
        source: PathError,
    },
    /// Something else must stand here.
    #[error("the field selector is wrong at position {position}: expected {expected}")]
    Expected {
        /// Where.
        position: usize,
        /// What may stand there.
        expected: &'static str,
    },
    /// More than anybody needs.
    #[error("the field selector has more than {MAX_TERMS} terms and values; ask for fewer at once")]
    TooMany,
    /// The kind cannot be selected by a path.
    #[error(
        "`{path}` is not selectable for this kind; selectable are {}. To select by it, add `{path}` under \
         `selectable` of the kind in the config", .selectable.join(", ")
    )]
    NotSelectable {
        /// The path.
        path: Path,
        /// The paths that are.
        selectable: Vec<String>,
    },
}

const OPERATOR: &str = "one of = == != in notin after the path, as in spec.nodeName=n1";
const EQUALS: &str = "a value without '='; write \\= for one";
const ESCAPE: &str = "one of \\\\ \\, \\= after the backslash; write \\\\ for a backslash";
const SET_ESCAPE: &str =
    "one of \\\\ \\, \\= \\) or a space after the backslash; write \\\\ for a backslash";
const OPEN: &str = "'(' and values, as in (a,b)";
const CLOSE: &str = "')' at the end of the values";
const NEXT: &str = "',' or the end after ')'";

impl FieldSelector {
    /// Reads a selector. Empty terms are passed over, as Kubernetes does.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut parser = Parser { text, at: 0 };
        let mut terms = Vec::new();
        let mut count = 0;
        while let Some(term) = parser.term()? {
            count += term.values.len().max(1);
            if count > MAX_TERMS {
                return Err(FieldSelectorError::TooMany);
            }
            terms.push(term);
        }
        terms.sort();
        Ok(Self(terms.into()))
    }

    /// Whether there is no term.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Ties the selector to a kind. Refuses a path that the kind cannot be selected by.
    pub fn resolve(
        &self,
        selectable: &Selectable,
    ) -> Result<BoundFieldSelector, FieldSelectorError> {
        let (name, namespace) = (
            Path::of(&["metadata", "name"]),
            Path::of(&["metadata", "namespace"]),
        );
        let bind = |term: &Term<Path>| {
            let of = if term.of == name {
                Value::Name
            } else if term.of == namespace {
                Value::Namespace
            } else if let Some((at, unset)) = selectable.find(&term.of) {
                Value::Field { at, unset }
            } else {
                let paths = [&name, &namespace].into_iter().chain(selectable.paths());
                return Err(FieldSelectorError::NotSelectable {
                    path: term.of.clone(),
                    selectable: paths.map(Path::selector_form).collect(),
                });
            };
            Ok(Term {
                of,
                negated: term.negated,
                values: term.values.clone(),
            })
        };
        self.0
            .iter()
            .map(bind)
            .collect::<Result<_, _>>()
            .map(BoundFieldSelector)
    }

    /// The one name that it leaves, where it says so with `=` or with a set of one.
    pub fn only_name(&self) -> Option<&str> {
        let name = Path::of(&["metadata", "name"]);
        let mut terms = self.0.iter();
        let term = terms.find(|term| term.of == name && !term.negated && term.values.len() == 1)?;
        term.values.first().map(|value| &**value)
    }

    /// As much of it as the API server understands: it selects at least what all of it does.
    pub fn for_review(&self) -> String {
        let understood = |term: &&Term<Path>| term.negated || term.values.len() == 1;
        let terms = self.0.iter().filter(understood).cloned().collect();
        Self(terms).to_kubernetes().unwrap_or_default()
    }

    /// The same as the API server understands it, which knows no sets; `None` where it needs one.
    pub fn to_kubernetes(&self) -> Option<String> {
        let mut text = String::new();
        for term in &self.0 {
            if !term.negated && term.values.len() > 1 {
                return None;
            }
            let operator = if term.negated { "!=" } else { "=" };
            for value in &term.values {
                let comma = if text.is_empty() { "" } else { "," };
                text.push_str(&format!(
                    "{comma}{}{operator}{}",
                    term.of.selector_form(),
                    escape(value)
                ));
            }
        }
        Some(text)
    }
}

impl BoundFieldSelector {
    /// Whether the object meets every term.
    pub fn matches(&self, object: &Object) -> bool {
        self.0.iter().all(|term| {
            let value = match term.of {
                Value::Name => object.key.name(),
                Value::Namespace => object.key.namespace(),
                Value::Field { at, unset } => object
                    .fields
                    .get(at)
                    .and_then(Option::as_deref)
                    .unwrap_or(unset),
            };
            term.values.iter().any(|v| **v == *value) != term.negated
        })
    }

    /// Whether the terms on name and namespace are met, which is all that can be told of a key alone.
    pub fn matches_key(&self, key: &Key) -> bool {
        self.0.iter().all(|term| {
            let value = match term.of {
                Value::Name => key.name(),
                Value::Namespace => key.namespace(),
                Value::Field { .. } => return true,
            };
            term.values.iter().any(|v| **v == *value) != term.negated
        })
    }

    /// Whether there is no term.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it reads a value that can change: anything but name and namespace.
    pub fn is_filter(&self) -> bool {
        self.0
            .iter()
            .any(|term| matches!(term.of, Value::Field { .. }))
    }

    /// The only name that can match, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.only(Value::Name)
    }

    /// The only namespace that can match, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.only(Value::Namespace)
    }

    fn only(&self, of: Value) -> Option<&str> {
        self.0.iter().find_map(|term| match &*term.values {
            [value] if term.of == of && !term.negated => Some(&**value),
            _ => None,
        })
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, FieldSelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    /// By path, without leading dots: in the form of Kubernetes where that has one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let path = term.of.selector_form();
            match (&*term.values, term.negated) {
                ([value], false) => write!(f, "{comma}{path}={}", escape(value))?,
                ([value], true) => write!(f, "{comma}{path}!={}", escape(value))?,
                (values, negated) => {
                    let operator = if negated { "notin" } else { "in" };
                    let values: Vec<_> = values.iter().map(|value| escape_in_set(value)).collect();
                    write!(f, "{comma}{path} {operator} ({})", values.join(","))?;
                }
            }
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace(',', r"\,")
        .replace('=', r"\=")
}

fn escape_in_set(value: &str) -> String {
    let space = |c: char| c.is_ascii_whitespace();
    let inner = value.trim_matches(space);
    let start = value.len() - value.trim_start_matches(space).len();
    let before = &value[..start];
    let after = &value[start + inner.len()..];
    let spaced = |text: &str| text.chars().flat_map(|c| ['\\', c]).collect::<String>();
    format!(
        "{}{}{}",
        spaced(before),
        escape(inner).replace(')', r"\)"),
        spaced(after)
    )
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next term, up to its comma or the end.
    fn term(&mut self) -> Result<Option<Term<Path>>, FieldSelectorError> {
        while self
            .rest()
            .starts_with(|c: char| c == ',' || c.is_ascii_whitespace())
        {
            self.at += 1;
        }
        if self.rest().is_empty() {
            return Ok(None);
        }
        let position = self.at;
        let path = self.path_text();
        let of = path
            .parse()
            .map_err(|source| FieldSelectorError::Path { position, source })?;
        let spaced = self.space();
        let negated = self.rest().starts_with("!=") || self.rest().starts_with("notin");
        let mut values = if self.take("!=") || self.take("==") || self.take("=") {
            vec![self.value()?]
        } else if spaced && (self.take("notin") || self.take("in")) {
            self.set()?
        } else {
            return Err(self.expected(OPERATOR));
        };
        values.sort();
        values.dedup();
        Ok(Some(Term {
            of,
            negated,
            values: values.into(),
        }))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn space(&mut self) -> bool {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
        self.at += rest.len() - trimmed.len();
        trimmed.len() < rest.len()
    }

    fn expected(&self, expected: &'static str) -> FieldSelectorError {
        FieldSelectorError::Expected {
            position: self.at,
            expected,
        }
    }

    /// The text of a path, in which quoted keys may have any character.
    fn path_text(&mut self) -> &'a str {
        let rest = self.rest();
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.char_indices().find(|(_, c)| {
            let ends = !quoted && (matches!(c, '=' | '!' | ',') || c.is_ascii_whitespace());
            if *c == '\'' && !escaped {
                quoted = !quoted;
            }
            escaped = quoted && *c == '\\' && !escaped;
            ends
        });
        let end = end.map_or(rest.len(), |(at, _)| at);
        self.at += end;
        &rest[..end]
    }

    /// The value after `=`, up to its comma or the end.
    fn value(&mut self) -> Result<Box<str>, FieldSelectorError> {
        let mut value = String::new();
        while let Some(c) = self.rest().chars().next() {
            match c {
                ',' => break,
                '=' => return Err(self.expected(EQUALS)),
                '\\' => value.push(self.escaped(|c| matches!(c, '\\' | ',' | '='), ESCAPE)?),
                c => {
                    value.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        Ok(value.into())
    }

    /// `(a,b)`, and what follows it up to a comma or the end. What is left out between commas is the empty value.
    fn set(&mut self) -> Result<Vec<Box<str>>, FieldSelectorError> {
        self.space();
        if !self.take("(") {
            return Err(self.expected(OPEN));
        }
        let mut values = Vec::new();
        loop {
            self.space();
            let mut value = String::new();
            // Where the value ends without the unescaped white space after it.
            let mut end = 0;
            let closed = loop {
                let c = self
                    .rest()
                    .chars()
                    .next()
                    .ok_or_else(|| self.expected(CLOSE))?;
                match c {
                    ',' | ')' => break c == ')',
                    '=' => return Err(self.expected(EQUALS)),
                    '\\' => {
                        let special = |c: char| {
                            matches!(c, '\\' | ',' | '=' | ')') || c.is_ascii_whitespace()
                        };
                        value.push(self.escaped(special, SET_ESCAPE)?);
                        end = value.len();
                    }
                    c => {
                        value.push(c);
                        self.at += c.len_utf8();
                        if !c.is_ascii_whitespace() {
                            end = value.len();
                        }
                    }
                }
            };
            self.at += 1;
            value.truncate(end);
            values.push(value.into());
            if closed {
                break;
            }
        }
        self.space();
        if self.rest().is_empty() || self.rest().starts_with(',') {
            Ok(values)
        } else {
            Err(self.expected(NEXT))
        }
    }

    /// A backslash and what it escapes.
    fn escaped(
        &mut self,
        special: fn(char) -> bool,
        expected: &'static str,
    ) -> Result<char, FieldSelectorError> {
        self.at += 1;
        let c = self
            .rest()
            .chars()
            .next()
            .filter(|c| special(*c))
            .ok_or_else(|| self.expected(expected))?;
        self.at += c.len_utf8();
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::{Selector, path::tests::path, tests::object};

    fn parse(text: &str) -> FieldSelector {
        FieldSelector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn pods(text: &str) -> BoundFieldSelector {
        parse(text)
            .resolve(&Selectable::builtin("", "pods"))
            .unwrap()
    }

    #[test]
    fn more_terms_than_anybody_needs_are_refused() {
        let many = |count: usize| vec!["spec.nodeName=n"; count].join(",");
        assert!(FieldSelector::parse(&many(MAX_TERMS)).is_ok());
        let refused = FieldSelector::parse(&many(MAX_TERMS + 1)).unwrap_err();
        assert_eq!(refused, FieldSelectorError::TooMany);
    }

    #[test]
    fn terms_match_values_and_unset_ones_match_as_the_api_server_has_it() {
        let mut pod = object("default", "web-0");
        pod.fields = vec![None; Selectable::builtin("", "pods").paths().len()].into();
        pod.fields[0] = Some("n1".into());
        pod.fields[5] = Some("Running".into());
        for holds in [
            "",
            "spec.nodeName=n1",
            ".spec.nodeName==n1",
            "spec.nodeName!=n2",
            "spec.nodeName in (n2, n1)",
            "status.phase notin (Failed,Succeeded)",
            "status.podIP=",
            "spec.hostNetwork=false",
            "metadata.name=web-0,metadata.namespace=default",
            "metadata.namespace notin (kube-system)",
            "status.podIP in ()",
            "spec.nodeName=n1,,status.phase=Running,",
        ] {
            assert!(pods(holds).matches(&pod), "{holds}");
        }
        for fails in [
            "spec.nodeName=n2",
            "spec.nodeName!=n1",
            "spec.nodeName=",
            "spec.nodeName notin (n1)",
            "status.podIP!=",
            "spec.hostNetwork=true",
            "spec.hostNetwork=",
            "metadata.name=web",
            "status.phase=Running,spec.nodeName=x",
        ] {
            assert!(!pods(fails).matches(&pod), "{fails}");
        }
    }

    #[test]
    fn values_are_escaped_as_kubernetes_escapes_them() {
        let term = |text: &str| {
            parse(text).0[0]
                .values
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(term(r"a=x\,y\=z\\"), [r"x,y=z\"]);
        assert_eq!(term(r"a= b "), [" b "], "Kubernetes does not trim a value");
        assert_eq!(term(r"a in ( b ,c\)d,\ e,, )"), ["", " e", "b", "c)d"]);
        assert_eq!(
            parse("metadata.labels['a=b,c']=d").0[0].of,
            path(".metadata.labels['a=b,c']")
        );
        assert_eq!(
            parse(r"x['it\'s, so']!=d").0[0].of,
            path(r".x['it\'s, so']")
        );
    }

    #[test]
    fn a_wrong_selector_says_where_and_what_to_write() {
        for (text, position, expected) in [
            ("spec.nodeName", 13, OPERATOR),
            ("spec.nodeName n1", 14, OPERATOR),
            ("spec.nodeName!n1", 13, OPERATOR),
            ("a=b=c", 3, EQUALS),
            (r"a=\n", 3, ESCAPE),
            (r"a=b\", 4, ESCAPE),
            ("a in b", 5, OPEN),
            ("a in (b", 7, CLOSE),
            ("a in (b=c)", 7, EQUALS),
            ("a in (b) c", 9, NEXT),
        ] {
            assert_eq!(
                FieldSelector::parse(text),
                Err(FieldSelectorError::Expected { position, expected }),
                "{text}"
            );
        }
        let error = FieldSelector::parse("a=b,c/d=e").unwrap_err();
        assert!(
            matches!(error, FieldSelectorError::Path { position: 4, .. }),
            "{error}"
        );
        assert!(FieldSelector::parse("=b").is_err());
    }

    #[test]
    fn an_unselectable_path_is_refused_with_what_is_selectable_and_the_config_key() {
        let error = parse("spec.foo=1")
            .resolve(&Selectable::builtin("", "nodes"))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`.spec.foo` is not selectable for this kind; selectable are metadata.name, metadata.namespace, \
             spec.unschedulable. To select by it, add `.spec.foo` under `selectable` of the kind in the config"
        );
    }

    #[test]
    fn what_the_api_server_understands_is_written_for_it() {
        assert_eq!(
            parse("a notin (b,c),.d in (x)").to_kubernetes().as_deref(),
            Some("a!=b,a!=c,d=x")
        );
        assert_eq!(parse(r"a=\,").to_kubernetes().as_deref(), Some(r"a=\,"));
        assert_eq!(parse("").to_kubernetes().as_deref(), Some(""));
        assert_eq!(parse("a in (b,c)").to_kubernetes(), None);
    }

    #[test]
    fn only_values_that_change_make_a_filter() {
        let selector = |fields: &str, labels: &str| Selector {
            fields: pods(fields),
            labels: labels.parse().unwrap(),
        };
        assert!(!selector("", "").is_filter());
        assert!(!selector("metadata.name=a,metadata.namespace!=b", "").is_filter());
        assert!(selector("metadata.name=a,spec.nodeName=n", "").is_filter());
        assert!(selector("", "app").is_filter());
    }

    #[test]
    fn the_only_name_and_namespace_that_can_match_are_known() {
        let selector = Selector {
            fields: pods("metadata.name=a,metadata.namespace in (b),spec.nodeName=c"),
            ..Selector::default()
        };
        assert_eq!(
            (selector.name(), selector.namespace()),
            (Some("a"), Some("b"))
        );
        let open = pods("metadata.name!=a,metadata.namespace in (b,c)");
        assert_eq!((open.name(), open.namespace()), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in "(a|\\.b|\\['x,=']|in|notin| |,|=|!=|\\(|\\)|\\\\|é){0,14}|.{0,24}") {
            if let Ok(parsed) = FieldSelector::parse(&text) {
                prop_assert_eq!(FieldSelector::parse(&parsed.to_string()), Ok(parsed));
            }
        }

        #[test]
        fn any_value_survives_printing(values in prop::collection::vec("[a,=\\\\() \té]{0,5}", 1..4), negated: bool) {
            let mut values: Vec<Box<str>> = values.into_iter().map(Into::into).collect();
            values.sort();
            values.dedup();
            let made = FieldSelector([Term { of: path(".a"), negated, values: values.into() }].into());
            prop_assert_eq!(FieldSelector::parse(&made.to_string()), Ok(made));
        }
    }
}
