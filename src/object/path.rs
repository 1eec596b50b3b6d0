//! The one syntax for naming a place in an object, wherever one is named: prune rules, masks, selectable fields.
//!
//! `.spec.containers[*].image`, `.metadata.labels['a.b/c']`. It is a small part of JSONPath. `FieldMask` does not
//! fit: it changes case, and has no way to write a key with a dot in it. There is no `[0]`: what a rule says of
//! one item it says of all.

use std::{fmt, str::FromStr};

/// Longest text of a path, in bytes.
pub const MAX_LENGTH: usize = 1024;
/// Most segments of a path.
pub const MAX_DEPTH: usize = 32;

/// A place in an object, from its root. Never empty, and begins with a field.
///
/// Read from text with or without the leading dot (kubectl's field selectors leave it out); printed with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Path(Box<[Segment]>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// The member of an object, by its exact key.
    Field(Box<str>),
    /// Every item of an array: `[*]`.
    AllItems,
}

/// Why a text is not a path. Positions are in bytes, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing is named.
    #[error("the path is empty: write one such as .spec.nodeName")]
    Empty,
    /// Over [`MAX_LENGTH`].
    #[error("the path has {0} bytes, {MAX_LENGTH} are allowed: name something nearer to the root")]
    TooLong(usize),
    /// Over [`MAX_DEPTH`].
    #[error("the path `{0}` has more than {MAX_DEPTH} segments: name something nearer to the root")]
    TooDeep(String),
    /// The text stops making sense at a position.
    #[error("the path `{path}` is wrong at position {position}: {wrong}")]
    Syntax {
        /// The whole text.
        path: String,
        /// Where, in bytes.
        position: usize,
        /// What is wrong, and what to write instead.
        wrong: Wrong,
    },
}

/// What is wrong with a path, and what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// `.a..b`, `a.`
    #[error("a name must follow the dot, as in .spec.nodeName")]
    NoName,
    /// `.a b`, `.a/b`
    #[error(
        "{0:?} cannot stand here; put a name with special characters in quotes, as in .metadata.labels['a.b/c']"
    )]
    Character(char),
    /// `.a[0]`, `.a["b"]`
    #[error(
        "after [ write * for all items, as in .spec.containers[*], or a name in single quotes, as in ['a.b/c']"
    )]
    Bracket,
    /// `.a['b`
    #[error("the quoted name has no end: close it with ']")]
    Open,
    /// `.a['\n']`
    #[error("a backslash in quotes can only stand before ' or \\")]
    Escape,
    /// `[*].a`
    #[error("an object has no items at its root: begin with a field, as in .spec")]
    Root,
}

impl Path {
    /// The path through these members of objects, for paths that are known when this is compiled.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn of(fields: &[&str]) -> Self {
        assert!(!fields.is_empty(), "a path names at least one field");
        Self(
            fields
                .iter()
                .map(|name| Segment::Field((*name).into()))
                .collect(),
        )
    }

    /// The steps from the root; at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this path is `ancestor` or lies below it.
    pub fn starts_with(&self, ancestor: &Path) -> bool {
        self.0.starts_with(&ancestor.0)
    }

    /// The path as Kubernetes writes one in a field selector: no leading dot.
    pub fn selector_form(&self) -> String {
        let text = self.to_string();
        text.strip_prefix('.').map(str::to_owned).unwrap_or(text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.0 {
            match segment {
                Segment::AllItems => f.write_str("[*]")?,
                Segment::Field(name) if !name.is_empty() && name.chars().all(is_bare) => {
                    write!(f, ".{name}")?;
                }
                Segment::Field(name) => {
                    write!(f, "['{}']", name.replace('\\', r"\\").replace('\'', r"\'"))?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(PathError::TooLong(text.len()));
        }
        let mut parser = Parser { text, at: 0 };
        let mut segments = Vec::new();
        while parser.at < text.len() {
            if segments.len() == MAX_DEPTH {
                return Err(PathError::TooDeep(text.to_owned()));
            }
            let segment =
                parser
                    .segment(segments.is_empty())
                    .map_err(|wrong| PathError::Syntax {
                        path: text.to_owned(),
                        position: parser.at,
                        wrong,
                    })?;
            segments.push(segment);
        }
        Ok(Self(segments.into()))
    }
}

impl TryFrom<String> for Path {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

/// Characters of names that need no quotes.
fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, expected: &str) -> bool {
        let found = self.text[self.at..].starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    fn segment(&mut self, first: bool) -> Result<Segment, Wrong> {
        if self.take("[*]") {
            if first {
                self.at = 0;
                return Err(Wrong::Root);
            }
            return Ok(Segment::AllItems);
        }
        if self.take("['") {
            return self.quoted();
        }
        match self.peek() {
            Some('[') => return Err(Wrong::Bracket),
            Some('.') => self.at += 1,
            Some(c) if !(first && is_bare(c)) => return Err(Wrong::Character(c)),
            _ => {}
        }
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(match self.peek() {
                None | Some('.' | '[') => Wrong::NoName,
                Some(c) => Wrong::Character(c),
            });
        }
        self.at += end;
        Ok(Segment::Field(rest[..end].into()))
    }

    /// The rest of `['name']`, after its quote.
    fn quoted(&mut self) -> Result<Segment, Wrong> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if self.take("']") {
                return Ok(Segment::Field(name.into()));
            }
            match c {
                '\'' => return Err(Wrong::Open),
                '\\' => {
                    let escaped = self.text[self.at + 1..].chars().next();
                    name.push(
                        escaped
                            .filter(|c| matches!(c, '\'' | '\\'))
                            .ok_or(Wrong::Escape)?,
                    );
                    self.at += 2;
                }
                c => {
                    name.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        Err(Wrong::Open)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn syntax(text: &str) -> (usize, Wrong) {
        match text.parse::<Path>() {
            Err(PathError::Syntax {
                position, wrong, ..
            }) => (position, wrong),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_path_names_fields_items_and_quoted_keys() {
        let parsed = path(".spec.containers[*].image");
        let field = |name: &str| Segment::Field(name.into());
        assert_eq!(
            parsed.segments(),
            [
                field("spec"),
                field("containers"),
                Segment::AllItems,
                field("image")
            ]
        );
        assert_eq!(
            path(".metadata.labels['a.b/c']").segments(),
            [field("metadata"), field("labels"), field("a.b/c")]
        );
        assert_eq!(
            path(r".x['it\'s \\']").segments(),
            [field("x"), field(r"it's \")]
        );
    }

    #[test]
    fn the_leading_dot_may_be_left_out_and_is_always_printed() {
        assert_eq!(path("spec.nodeName"), path(".spec.nodeName"));
        assert_eq!(path("spec.nodeName").to_string(), ".spec.nodeName");
        assert_eq!(path("spec.nodeName").selector_form(), "spec.nodeName");
        assert_eq!(
            path(".a['b']").to_string(),
            ".a.b",
            "quotes only where they are needed"
        );
        assert_eq!(path("['a.b'].c").to_string(), "['a.b'].c");
    }

    #[test]
    fn a_wrong_path_says_where_and_what_to_write() {
        assert_eq!("".parse::<Path>(), Err(PathError::Empty));
        assert_eq!(syntax("."), (1, Wrong::NoName));
        assert_eq!(syntax(".a..b"), (3, Wrong::NoName));
        assert_eq!(syntax(".a."), (3, Wrong::NoName));
        assert_eq!(syntax(".a/b"), (2, Wrong::Character('/')));
        assert_eq!(syntax(".a b"), (2, Wrong::Character(' ')));
        assert_eq!(syntax(".a[0]"), (2, Wrong::Bracket));
        assert_eq!(syntax(".a[\"b\"]"), (2, Wrong::Bracket));
        assert_eq!(syntax(".a['b"), (5, Wrong::Open));
        assert_eq!(syntax(r".a['\n']"), (4, Wrong::Escape));
        assert_eq!(syntax(".a[*]b"), (5, Wrong::Character('b')));
        assert_eq!(syntax("[*].a"), (0, Wrong::Root));
        assert_eq!(
            ".metadata.labels.a/b"
                .parse::<Path>()
                .unwrap_err()
                .to_string(),
            "the path `.metadata.labels.a/b` is wrong at position 18: '/' cannot stand here; put a name with \
             special characters in quotes, as in .metadata.labels['a.b/c']"
        );
    }

    #[test]
    fn length_and_depth_are_capped() {
        assert!(".a".repeat(MAX_DEPTH).parse::<Path>().is_ok());
        assert!(matches!(
            ".a".repeat(MAX_DEPTH + 1).parse::<Path>(),
            Err(PathError::TooDeep(_))
        ));
        assert!(
            format!(".{}", "a".repeat(MAX_LENGTH - 1))
                .parse::<Path>()
                .is_ok()
        );
        assert_eq!(
            format!(".{}", "a".repeat(MAX_LENGTH)).parse::<Path>(),
            Err(PathError::TooLong(MAX_LENGTH + 1))
        );
    }

    #[test]
    fn ancestry_goes_by_whole_segments() {
        assert!(path(".a.b").starts_with(&path(".a")));
        assert!(path(".a").starts_with(&path(".a")));
        assert!(!path(".ab").starts_with(&path(".a")));
        assert!(!path(".a[*]").starts_with(&path(".a.b")));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(
            first in ".{0,8}",
            rest in prop::collection::vec(prop::option::of("[a-c./'\\\\\\[\\]é ]{0,6}"), 0..8)
        ) {
            let rest = rest.into_iter().map(|s| match s {
                Some(name) => Segment::Field(name.into()),
                None => Segment::AllItems,
            });
            let made = Path(std::iter::once(Segment::Field(first.into())).chain(rest).collect());
            prop_assert_eq!(made.to_string().parse::<Path>(), Ok(made.clone()));
            prop_assert_eq!(made.selector_form().parse::<Path>(), Ok(made));
        }

        #[test]
        fn any_text_is_a_path_or_an_error(text in "[a\\.\\[\\]\\*'\\\\é\" ]{0,24}|.{0,40}") {
            if let Ok(parsed) = text.parse::<Path>() {
                prop_assert_eq!(parsed.to_string().parse::<Path>(), Ok(parsed));
            }
        }
    }
}
