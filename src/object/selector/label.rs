//! Kubernetes label selectors: `app=web,tier in (a,b),!canary,weight>3`.
//!
//! Accepts, matches and prints as apimachinery's `labels.Parse` does, so that a selector means here what it means
//! to kubectl. The one difference: a NUL, which apimachinery takes for the end of the text, is refused.

use std::{fmt, str::FromStr};

use super::MAX_TERMS;
use crate::object::Labels;

/// Requirements on labels that must all hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector(Box<[Requirement]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: Box<str>,
    operator: Operator,
    /// Sorted, each once; exactly one for all but `In` and `NotIn`, none for `Exists` and `DoesNotExist`.
    values: Box<[Box<str>]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// Why a text is not a label selector. Positions are in bytes, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelSelectorError {
    /// Something else must stand here.
    #[error(
        "the label selector is wrong at position {position}: found {found}, expected {expected}"
    )]
    Unexpected {
        /// Where.
        position: usize,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// Not the key of a label.
    #[error(
        "the label selector is wrong at position {position}: {key:?} is not a label key: {rule}; write one such as \
         app or app.kubernetes.io/name"
    )]
    Key {
        /// Where.
        position: usize,
        /// The key.
        key: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Not the value of a label.
    #[error(
        "the label selector is wrong at position {position}: {value:?} is not a label value: {VALUE_RULE}"
    )]
    Value {
        /// Where.
        position: usize,
        /// The value.
        value: String,
    },
    /// More than anybody needs.
    #[error(
        "the label selector has more than {MAX_TERMS} requirements and values; ask for fewer at once"
    )]
    TooMany,
    /// Not a whole number after `<` or `>`.
    #[error(
        "the label selector is wrong at position {position}: {value:?} is not a 64-bit whole number, as < and > need"
    )]
    Number {
        /// Where.
        position: usize,
        /// The value.
        value: String,
    },
}

const VALUE_RULE: &str = "write at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit";
const PREFIX_RULE: &str =
    "its prefix must be a DNS name of at most 253 lower-case letters, digits, '-' and '.'";
const NAME_RULE: &str = "its name must be 1 to 63 letters, digits, '-', '_' or '.', beginning and ending with a letter \
                         or digit";
const SLASH_RULE: &str = "it may have one '/'";

impl LabelSelector {
    /// Whether these labels meet every requirement. `!=` and `notin` hold where the label is absent.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether there is no requirement.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let listed = |value: &str| self.values.iter().any(|v| **v == *value);
        let compared = |holds: fn(&i64, &i64) -> bool| {
            let (Some(Ok(value)), Some(Ok(bound))) = (
                value.map(str::parse),
                self.values.first().map(|v| v.parse()),
            ) else {
                return false;
            };
            holds(&value, &bound)
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(i64::gt),
            Operator::LessThan => compared(i64::lt),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// In Kubernetes's canonical form: by key, values of a set sorted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let (key, values) = (&requirement.key, requirement.values.join(","));
            match requirement.operator {
                Operator::Equals => write!(f, "{comma}{key}={values}")?,
                Operator::DoubleEquals => write!(f, "{comma}{key}=={values}")?,
                Operator::NotEquals => write!(f, "{comma}{key}!={values}")?,
                Operator::In => write!(f, "{comma}{key} in ({values})")?,
                Operator::NotIn => write!(f, "{comma}{key} notin ({values})")?,
                Operator::Exists => write!(f, "{comma}{key}")?,
                Operator::DoesNotExist => write!(f, "{comma}!{key}")?,
                Operator::GreaterThan => write!(f, "{comma}{key}>{values}")?,
                Operator::LessThan => write!(f, "{comma}{key}<{values}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, LabelSelectorError> {
        let mut tokens = Tokens { text, at: 0 };
        let mut requirements = Vec::new();
        if tokens.peek().kind == Kind::End {
            return Ok(Self::default());
        }
        let mut terms = 0;
        loop {
            let requirement = requirement(&mut tokens)?;
            terms += requirement.values.len().max(1);
            if terms > MAX_TERMS {
                return Err(LabelSelectorError::TooMany);
            }
            requirements.push(requirement);
            let token = tokens.take();
            match token.kind {
                Kind::End => break,
                Kind::Symbol(",") => {}
                _ => return Err(token.unexpected("',' or the end")),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self(requirements.into()))
    }
}

/// A piece of the text: an identifier, a symbol or the end.
#[derive(Clone, Copy)]
struct Token<'a> {
    position: usize,
    kind: Kind<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    Word(&'a str),
    Symbol(&'a str),
    End,
}

impl Token<'_> {
    fn unexpected(&self, expected: &'static str) -> LabelSelectorError {
        let found = match self.kind {
            Kind::Word(text) | Kind::Symbol(text) => format!("{text:?}"),
            Kind::End => "the end".to_owned(),
        };
        LabelSelectorError::Unexpected {
            position: self.position,
            found,
            expected,
        }
    }
}

#[derive(Clone, Copy)]
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn take(&mut self) -> Token<'a> {
        let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '<' | '>');
        let rest = self.text[self.at..].trim_start_matches(space);
        let position = self.text.len() - rest.len();
        let length = match rest.as_bytes() {
            [b'=' | b'!', b'=', ..] => 2,
            [first, ..] if special(char::from(*first)) => 1,
            _ => rest.find(|c| space(c) || special(c)).unwrap_or(rest.len()),
        };
        self.at = position + length;
        let text = &rest[..length];
        let kind = match text.chars().next() {
            None => Kind::End,
            Some(c) if special(c) => Kind::Symbol(text),
            Some(_) => Kind::Word(text),
        };
        Token { position, kind }
    }

    fn peek(&self) -> Token<'a> {
        let mut ahead = *self;
        ahead.take()
    }
}

/// One requirement. Whether `in` is an operator or a name goes by where it stands.
fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, LabelSelectorError> {
    let mut token = tokens.take();
    let negated = token.kind == Kind::Symbol("!");
    if negated {
        token = tokens.take();
    }
    let Kind::Word(key) = token.kind else {
        return Err(token.unexpected(if negated {
            "a label key"
        } else {
            "a label key or '!'"
        }));
    };
    check_key(key, token.position)?;
    let made = |operator, values: Vec<&str>| {
        let mut values: Vec<Box<str>> = values.into_iter().map(Into::into).collect();
        values.sort();
        values.dedup();
        Ok(Requirement {
            key: key.into(),
            operator,
            values: values.into(),
        })
    };
    if negated {
        return made(Operator::DoesNotExist, Vec::new());
    }
    if let Kind::End | Kind::Symbol(",") = tokens.peek().kind {
        return made(Operator::Exists, Vec::new());
    }
    let token = tokens.take();
    let operator = match token.kind {
        Kind::Symbol("=") => Operator::Equals,
        Kind::Symbol("==") => Operator::DoubleEquals,
        Kind::Symbol("!=") => Operator::NotEquals,
        Kind::Symbol(">") => Operator::GreaterThan,
        Kind::Symbol("<") => Operator::LessThan,
        Kind::Word("in") => return made(Operator::In, set(tokens)?),
        Kind::Word("notin") => return made(Operator::NotIn, set(tokens)?),
        _ => return Err(token.unexpected("one of = == != in notin < >, ',' or the end")),
    };
    let token = tokens.peek();
    let value = match token.kind {
        Kind::End | Kind::Symbol(",") => "",
        Kind::Word(value) => {
            tokens.take();
            value
        }
        Kind::Symbol(_) => return Err(token.unexpected("a label value")),
    };
    check_value(value, token.position)?;
    if matches!(operator, Operator::GreaterThan | Operator::LessThan)
        && value.parse::<i64>().is_err()
    {
        return Err(LabelSelectorError::Number {
            position: token.position,
            value: value.to_owned(),
        });
    }
    made(operator, vec![value])
}

/// `(a,b)`; what is left out between commas is the empty value.
fn set<'a>(tokens: &mut Tokens<'a>) -> Result<Vec<&'a str>, LabelSelectorError> {
    let token = tokens.take();
    if token.kind != Kind::Symbol("(") {
        return Err(token.unexpected("'('"));
    }
    let mut values = Vec::new();
    loop {
        let token = tokens.peek();
        let value = match token.kind {
            Kind::Word(value) => {
                tokens.take();
                value
            }
            _ => "",
        };
        check_value(value, token.position)?;
        values.push(value);
        let token = tokens.take();
        match token.kind {
            Kind::Symbol(",") => {}
            Kind::Symbol(")") => return Ok(values),
            _ => return Err(token.unexpected("',', ')' or a label value")),
        }
    }
}

fn check_key(key: &str, position: usize) -> Result<(), LabelSelectorError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let rule = if name.contains('/') {
        SLASH_RULE
    } else if prefix.is_some_and(|prefix| !is_dns_name(prefix)) {
        PREFIX_RULE
    } else if !is_name(name) {
        NAME_RULE
    } else {
        return Ok(());
    };
    Err(LabelSelectorError::Key {
        position,
        key: key.to_owned(),
        rule,
    })
}

fn check_value(value: &str, position: usize) -> Result<(), LabelSelectorError> {
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(LabelSelectorError::Value {
        position,
        value: value.to_owned(),
    })
}

fn is_name(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// An RFC 1123 subdomain.
fn is_dns_name(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.split('.').map(str::as_bytes).all(|part| {
            part.first().is_some_and(|b| alphanumeric(*b))
                && part.last().is_some_and(|b| alphanumeric(*b))
                && part.iter().all(|b| alphanumeric(*b) || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selector(text: &str) -> LabelSelector {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn matches(text: &str, labels: &[(&str, &str)]) -> bool {
        selector(text).matches(&labels.iter().copied().collect())
    }

    #[test]
    fn more_terms_than_anybody_needs_are_refused() {
        let many = |count: usize| vec!["a"; count].join(",");
        assert!(many(MAX_TERMS).parse::<LabelSelector>().is_ok());
        let too_many = [
            many(MAX_TERMS + 1),
            // Values that are the same count once.
            format!(
                "a in ({})",
                (0..=MAX_TERMS)
                    .map(|n| n.to_string())
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        ];
        for text in too_many {
            let refused = text.parse::<LabelSelector>().unwrap_err();
            assert_eq!(refused, LabelSelectorError::TooMany);
            assert!(refused.to_string().contains("more than 512"));
        }
    }

    #[test]
    fn each_operator_matches_as_kubernetes_has_it() {
        let labels = [("app", "web"), ("n", "5"), ("empty", "")];
        for holds in [
            "",
            " ",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db,web)",
            "app notin (db)",
            "!other",
            "other!=x",
            "other notin (x)",
            "n>4",
            "n<6",
            "empty",
            "empty=",
            "empty in ()",
            "empty in (,x)",
            "app,n",
            "app = web , n > 4",
            "other notin ()",
        ] {
            assert!(matches(holds, &labels), "{holds}");
        }
        for fails in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (db,web)",
            "!app",
            "other",
            "other=",
            "other in ()",
            "n>5",
            "n<5",
            "app>1",
            "other>1",
            "empty!=",
            "empty notin ()",
            "app,other",
        ] {
            assert!(!matches(fails, &labels), "{fails}");
        }
    }

    #[test]
    fn it_prints_in_the_canonical_form() {
        for (text, canonical) in [
            ("z=1,a==2", "a==2,z=1"),
            ("x in (b,a,a)", "x in (a,b)"),
            ("x notin ( )", "x notin ()"),
            (
                "x in (foo,,baz),y,z notin ()",
                "x in (,baz,foo),y,z notin ()",
            ),
            ("!a , b!=c", "!a,b!=c"),
            ("n > 3,m<2", "m<2,n>3"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("notin=in", "notin=in"),
            ("a=,b", "a=,b"),
            ("x=a,x!=b", "x=a,x!=b"),
        ] {
            assert_eq!(selector(text).to_string(), canonical);
        }
    }

    #[test]
    fn a_wrong_selector_says_where_and_what_is_expected() {
        for (text, message) in [
            (
                "app=web,",
                "position 8: found the end, expected a label key or '!'",
            ),
            (
                ",app",
                "position 0: found \",\", expected a label key or '!'",
            ),
            (
                "app web",
                "position 4: found \"web\", expected one of = == != in notin < >, ',' or the end",
            ),
            (
                "!app=web",
                "position 4: found \"=\", expected ',' or the end",
            ),
            ("!", "position 1: found the end, expected a label key"),
            ("app in web", "position 7: found \"web\", expected '('"),
            (
                "app in (a b)",
                "position 10: found \"b\", expected ',', ')' or a label value",
            ),
            (
                "app in (a",
                "position 9: found the end, expected ',', ')' or a label value",
            ),
            ("app=(a)", "position 4: found \"(\", expected a label value"),
            ("a=b=c", "position 3: found \"=\", expected ',' or the end"),
            (
                "-a=b",
                "position 0: \"-a\" is not a label key: its name must be",
            ),
            (
                "A.b/c=d",
                "position 0: \"A.b/c\" is not a label key: its prefix must be",
            ),
            (
                "/c=d",
                "position 0: \"/c\" is not a label key: its prefix must be",
            ),
            (
                "a/b/c",
                "position 0: \"a/b/c\" is not a label key: it may have one '/'",
            ),
            (
                "a=b@c",
                "position 2: \"b@c\" is not a label value: write at most 63",
            ),
            ("a>x", "position 2: \"x\" is not a 64-bit whole number"),
            ("a<", "position 2: \"\" is not a 64-bit whole number"),
            ("a=b\0", "position 2: \"b\\0\" is not a label value"),
        ] {
            let error = text.parse::<LabelSelector>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(
            format!("{}=a", "k".repeat(64))
                .parse::<LabelSelector>()
                .is_err()
        );
        assert!(
            format!("a={}", "v".repeat(64))
                .parse::<LabelSelector>()
                .is_err()
        );
        assert!(
            format!("{}={}", "k".repeat(63), "v".repeat(63))
                .parse::<LabelSelector>()
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in "[ab/.=!(), <>5]{0,16}|(a|in|notin|b|,|=| |\\(|\\)|!){0,12}|.{0,20}") {
            if let Ok(parsed) = text.parse::<LabelSelector>() {
                prop_assert_eq!(parsed.to_string().parse::<LabelSelector>(), Ok(parsed));
            }
        }
    }
}
