//! What a resume token says, and whether it is for this watch.
//!
//! Neither secret nor signed: numbers and hashes, which give no rights. Any bytes at all are either a token or
//! a clear error.

use prost::Message;

use super::status::Error;
use crate::{
    cache::Position,
    planted::{self, Bug},
};

const FORMAT: u32 = 1;
/// Longest token that is looked at. A shard takes about 50 bytes.
const MAX_BYTES: usize = 64 << 10;

/// A decoded token.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Token {
    /// Version of this message.
    #[prost(uint32, tag = "1")]
    format: u32,
    /// The kind, as the config names it.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Hash of scope, selectors, view, mask and the rest that decides what is sent.
    #[prost(fixed64, tag = "3")]
    pub scope: u64,
    /// Hash of the kind's config: prune rules, selectors.
    #[prost(fixed64, tag = "4")]
    pub config: u64,
    /// The process that gave it.
    #[prost(fixed64, tag = "5")]
    pub incarnation: u64,
    /// Where the stream stood; a shard that had not been sent is absent.
    #[prost(message, repeated, tag = "6")]
    pub positions: Vec<TokenPosition>,
    /// Namespaces of the scope that were withheld: the consumer holds nothing of them. An empty one is all of it.
    #[prost(string, repeated, tag = "7")]
    pub withheld: Vec<String>,
}

/// Where the stream stood in one shard.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TokenPosition {
    /// The shard's.
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(uint64, tag = "2")]
    history: u64,
    #[prost(uint64, tag = "3")]
    revision: u64,
    #[prost(uint64, tag = "4")]
    sequence: u64,
    #[prost(fixed64, tag = "5")]
    digest: u64,
}

/// A token's position in a shard, and what it is worth.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// As the process that gave it had it.
    pub position: Position,
    /// Who that was.
    pub origin: Origin,
}

/// Who gave a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This process.
    Here,
    /// Another one with the same config.
    Replica,
    /// One whose config for the kind is another: what it had is not what is here.
    OtherConfig,
}

impl TokenPosition {
    /// Of a shard.
    pub fn new(namespace: &str, position: &Position) -> Self {
        Self {
            namespace: namespace.to_owned(),
            history: position.history,
            revision: position.revision,
            sequence: position.sequence,
            digest: position.digest,
        }
    }

    fn position(&self) -> Position {
        Position {
            history: self.history,
            revision: self.revision,
            sequence: self.sequence,
            digest: self.digest,
        }
    }
}

impl Token {
    /// For a watch.
    pub fn new(
        kind: &str,
        scope: u64,
        config: u64,
        incarnation: u64,
        positions: Vec<TokenPosition>,
    ) -> Self {
        Self {
            format: FORMAT,
            kind: kind.to_owned(),
            scope,
            config,
            incarnation,
            positions,
            withheld: Vec::new(),
        }
    }

    /// As sent. About 60 bytes for a kind of one shard.
    pub fn encode_to_bytes(&self) -> bytes::Bytes {
        self.encode_to_vec().into()
    }

    /// Any bytes at all yield a token or an error.
    pub fn decode_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            let problem = format!(
                "{} bytes are more than any token has ({MAX_BYTES})",
                bytes.len()
            );
            return Err(Error::invalid("token", problem));
        }
        let token = Self::decode(bytes).map_err(|_| {
            Error::invalid(
                "token",
                "not a token; pass one exactly as a mark or a list gave it",
            )
        })?;
        if token.format != FORMAT {
            let problem = format!(
                "its format {} is not known here; start without a token",
                token.format
            );
            return Err(Error::invalid("token", problem));
        }
        Ok(token)
    }

    /// Where the stream stood, by the shards' namespaces, as seen by a process of this incarnation and config.
    pub fn places(&self, incarnation: u64, config: u64) -> Vec<(String, Place)> {
        let origin = if self.incarnation == incarnation {
            Origin::Here
        } else if self.config == config || planted::is(Bug::ForeignConfigAccepted) {
            Origin::Replica
        } else {
            Origin::OtherConfig
        };
        let place = |position: &TokenPosition| {
            let place = Place {
                position: position.position(),
                origin,
            };
            (position.namespace.clone(), place)
        };
        self.positions.iter().map(place).collect()
    }

    /// Refuses a token of another watch. `scopes` are those that the request can go on with.
    pub fn check(&self, kind: &str, scopes: &[u64]) -> Result<(), Error> {
        let given = if self.kind != kind {
            format!("kind {:?}, not {kind:?}", self.kind)
        } else if !scopes.contains(&self.scope) {
            "another scope, selector, view, fields or changes".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::TokenScope { given })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        let position = Position {
            history: 1,
            revision: 2,
            sequence: 3,
            digest: u64::MAX,
        };
        Token::new("pods", 5, 6, 7, vec![TokenPosition::new("a", &position)])
    }

    #[test]
    fn a_token_comes_back_as_it_was_given() {
        let again = Token::decode_bytes(&token().encode_to_bytes()).unwrap();
        assert_eq!(again, token());
        assert_eq!(
            again.positions[0].position(),
            token().positions[0].position()
        );
    }

    #[test]
    fn a_token_of_another_watch_is_refused() {
        assert!(token().check("pods", &[4, 5]).is_ok());
        for (kind, scope) in [("nodes", 5), ("pods", 6)] {
            assert!(matches!(
                token().check(kind, &[scope]),
                Err(Error::TokenScope { .. })
            ));
        }
    }

    #[test]
    fn a_token_of_a_later_format_is_refused() {
        let later = Token {
            format: 9,
            ..token()
        };
        let error = Token::decode_bytes(&later.encode_to_bytes()).unwrap_err();
        assert!(error.to_string().contains("format 9"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_token_or_an_error(bytes: Vec<u8>) {
            let _ = Token::decode_bytes(&bytes);
        }

        #[test]
        fn a_damaged_token_is_a_token_or_an_error(at in 0_usize..60, byte: u8) {
            let mut bytes = token().encode_to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Token::decode_bytes(&bytes);
        }
    }
}
