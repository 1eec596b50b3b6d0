//! What people and programs write on a line: selectors, paths, tokens; and the configuration.

use std::{fmt::Debug, fmt::Display, str::FromStr};

use crate::{
    aerospike::protocol::Answers,
    api::token::Token,
    args::ServeArgs,
    config,
    object::{FieldSelector, LabelSelector, Path},
};

pub(super) fn label_selector(data: &[u8]) {
    round_trip::<LabelSelector>(data);
}

pub(super) fn field_selector(data: &[u8]) {
    round_trip::<FieldSelector>(data);
}

pub(super) fn path(data: &[u8]) {
    round_trip::<Path>(data);
}

/// What is printed of something reads as the same.
fn round_trip<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(parsed) = text.parse::<T>() {
        let printed = parsed.to_string();
        assert_eq!(printed.parse::<T>().ok(), Some(parsed), "{printed:?}");
    }
}

/// What is a token stays one, and leads to as many places.
pub(super) fn token(data: &[u8]) {
    let Ok(token) = Token::decode_bytes(data) else {
        return;
    };
    let again = Token::decode_bytes(&token.encode_to_bytes());
    assert_eq!(again.as_ref().ok(), Some(&token), "{again:?}");
    assert_eq!(token.places(1, 1).len(), token.positions.len());
}

/// A configuration is read or refused in words; one that is read has no two kinds of one name.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match config::load_text(text, &ServeArgs::default()) {
        Ok(config) => {
            let mut names: Vec<_> = config.kinds.iter().map(|kind| &kind.resource).collect();
            names.sort();
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What a database node says of itself.
pub(super) fn info_protocol(data: &[u8]) {
    let answers = Answers::parse(data);
    for error in answers.errors() {
        assert!(!error.to_string().is_empty());
    }
}
