//! Tokens, and what stands for them where they are remembered.
//!
//! A cache keyed by tokens would be a list of credentials for whoever reads the process's memory or a core dump.
//! Its keys are HMACs under a key that this process made up and tells nobody, so that they are good for nothing
//! else, not even for trying out guesses elsewhere.

use std::fmt;

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

/// A bearer token. Wiped when it is dropped; never printed.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes it as it came.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// For the one request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Stands for a credential or a question where it is remembered.
pub(super) type Fingerprint = [u8; 32];

/// Makes [`Fingerprint`]s that mean something within this process only.
pub(super) struct Fingerprints(hmac::Key);

impl Fingerprints {
    /// Under a new key; `None` where the system has no randomness.
    pub(super) fn random() -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *key).ok()?;
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &*key)))
    }

    /// Of these parts, in this order. `domain` keeps different sorts apart.
    pub(super) fn of<'a>(
        &self,
        domain: &'a str,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(domain.as_bytes()).chain(parts) {
            // With its length, so that no two lists of parts read the same.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.sign().as_ref());
        fingerprint
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_the_hmac_of_its_parts_under_a_key_of_the_process() {
        let fingerprints = Fingerprints::random().unwrap();
        let of = |parts: &[&[u8]]| fingerprints.of("token", parts.iter().copied());
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
        assert_ne!(of(&[b"ab"]), of(&[b"a", b"b"]));
        assert_ne!(of(&[b"a"]), fingerprints.of("access", [&b"a"[..]]));
        let other = Fingerprints::random().unwrap();
        assert_ne!(of(&[b"a"]), other.of("token", [&b"a"[..]]));
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token::new("ey.secret.token");
        assert_eq!(format!("{token:?} {token:#?}"), "Token(..) Token(..)");
        assert_eq!(token.expose(), "ey.secret.token");
    }
}
