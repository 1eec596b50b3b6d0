//! Says who is asking, where an Enterprise server wants to know.
//!
//! Community servers have no users. An Enterprise server with security on answers every info request on a socket
//! that has not logged in with error 80. The login is one security message with the user and the password's bcrypt
//! hash under a salt that all of Aerospike's clients share; its answer opens the socket on which it came. The session
//! token that comes along is for further sockets and is not used: a survey opens one socket per node and logs in on
//! each. External (LDAP) and certificate (PKI) users are not supported: LDAP would send the password in the clear.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::protocol::{Frame, FrameType};

/// bcrypt's cost and salt (`7EqJtq98hPqEX7fNZaFWoO` in bcrypt's own base64), fixed by the protocol.
const COST: u32 = 10;
const SALT: [u8; 16] = [
    0xf4, 0x6b, 0x0b, 0xbe, 0xcf, 0xfe, 0x8d, 0x1b, 0x06, 0x67, 0xd8, 0x4f, 0x6d, 0xc1, 0xd8, 0xa9,
];

const LOGIN: u8 = 20;
const USER: u8 = 0;
const CREDENTIAL: u8 = 3;
/// A security message's own header, within the frame's body.
const HEADER: usize = 16;

const OK: u8 = 0;
const NOT_SUPPORTED: u8 = 51;
const NOT_CONFIGURED: u8 = 52;

/// A user and the hash of its password. The password itself is not kept, and neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    hash: String,
}

/// Why a user and password cannot be used, or were not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// It cannot be hashed as the server hashes it.
    #[error("the password cannot be hashed: {0}; write one of 1 to 72 bytes without a zero byte")]
    Password(String),
    /// The server's answer is no answer to a login.
    #[error("the answer to the login is not one: {0}")]
    Garbled(&'static str),
    /// The server said no.
    #[error("the login was refused: {}", refusal(*.0))]
    Refused(u8),
}

impl Credentials {
    /// Hashes the password: about 50 ms of computing, so do it once and not where others wait.
    ///
    /// # Errors
    ///
    /// The password is empty, longer than bcrypt's 72 bytes, or holds a zero byte.
    pub fn new(user: impl Into<String>, password: &str) -> Result<Self, LoginError> {
        let problem = match password {
            "" => Some("it is empty"),
            long if long.len() > 72 => Some("it is too long"),
            zero if zero.contains('\0') => Some("it holds a zero byte"),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(LoginError::Password(problem.to_owned()));
        }
        let parts = bcrypt::hash_with_salt(password.as_bytes(), COST, SALT)
            .map_err(|error| LoginError::Password(error.to_string()))?;
        Ok(Self {
            user: user.into(),
            hash: parts.format_for_version(bcrypt::Version::TwoA),
        })
    }

    /// The user's name.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The message that logs in.
    pub fn login(&self) -> Frame {
        let mut body = BytesMut::with_capacity(HEADER + 10 + self.user.len() + self.hash.len());
        body.put_slice(&[0, 0, LOGIN, 2]);
        body.put_bytes(0, HEADER - 4);
        for (id, value) in [(USER, &self.user), (CREDENTIAL, &self.hash)] {
            // The length counts the id; a user name is far below four gigabytes.
            body.put_u32(u32::try_from(value.len() + 1).unwrap_or(u32::MAX));
            body.put_u8(id);
            body.put_slice(value.as_bytes());
        }
        security(body.freeze())
    }

    /// Whether a frame is a login as this user: the model's side of it.
    pub(super) fn admits(&self, frame: &Frame) -> bool {
        *frame == self.login()
    }
}

/// Reads the answer to a login. A server without security needs none, which is as good as yes.
///
/// # Errors
///
/// The server refuses, or the frame is not an answer to a login.
pub fn read_answer(frame: &Frame) -> Result<(), LoginError> {
    if frame.kind != FrameType::Security {
        return Err(LoginError::Garbled("it is not a security message"));
    }
    let header = frame.body.first_chunk::<HEADER>();
    match header.ok_or(LoginError::Garbled("it is too short"))?[1] {
        OK | NOT_SUPPORTED | NOT_CONFIGURED => Ok(()),
        code => Err(LoginError::Refused(code)),
    }
}

/// The answer to a login with this result code: the model's side of it.
pub(super) fn answer(code: u8) -> Frame {
    let mut body = BytesMut::new();
    body.put_slice(&[0, code]);
    body.put_bytes(0, HEADER - 2);
    security(body.freeze())
}

fn security(body: Bytes) -> Frame {
    Frame {
        kind: FrameType::Security,
        body,
    }
}

fn refusal(code: u8) -> String {
    let words = match code {
        60 => "there is no such user",
        62 | 65 => "the password is wrong",
        63 => "the password has expired",
        82 => "this address is not on the user's allow list",
        _ => return format!("security code {code}"),
    };
    format!("{words} (code {code})")
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Credentials");
        debug.field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hashed_as_aerospikes_clients_hash_it() {
        let credentials = Credentials::new("probe", "secret").unwrap();
        // By glibc's crypt("secret", "$2a$10$7EqJtq98hPqEX7fNZaFWoO").
        assert_eq!(
            credentials.hash,
            "$2a$10$7EqJtq98hPqEX7fNZaFWoOu7NRZ0i7m5NbgPBEsHTCoJzZDEKQRb."
        );
        let printed = format!("{credentials:?}");
        assert!(!printed.contains("$2a$"), "{printed}");

        let login = credentials.login();
        assert_eq!(login.kind, FrameType::Security);
        assert_eq!(&login.body[..4], [0, 0, 20, 2]);
        assert_eq!(&login.body[16..26], b"\0\0\0\x06\0probe");
        assert_eq!(&login.body[26..31], b"\0\0\0\x3d\x03");
        assert_eq!(login.body.len(), 31 + 60);
    }

    #[test]
    fn passwords_that_the_server_would_see_otherwise_are_refused() {
        for password in ["", "a\0b", &"x".repeat(73)] {
            let refused = Credentials::new("probe", password).unwrap_err();
            assert!(refused.to_string().contains("1 to 72 bytes"), "{refused}");
        }
    }

    #[test]
    fn a_refused_login_says_why_and_a_server_without_security_is_content() {
        assert_eq!(read_answer(&answer(OK)), Ok(()));
        assert_eq!(read_answer(&answer(NOT_CONFIGURED)), Ok(()));
        let refused = read_answer(&answer(65)).unwrap_err().to_string();
        assert!(refused.contains("password is wrong"), "{refused}");
        let short = security(Bytes::from_static(b"\0\0"));
        assert!(matches!(read_answer(&short), Err(LoginError::Garbled(_))));
    }
}
