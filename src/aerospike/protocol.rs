//! The info protocol: one frame of commands out, one frame of answers back.
//!
//! A frame is an eight-byte header (version 2, a type, a 48-bit big-endian length) and a body. A request's body is
//! `command\n` repeated; an answer's is `command\tvalue\n` repeated, in which errors are values. No crate asks this
//! without joining the cluster as a client, hence these lines of our own. Whatever bytes come, nothing here panics
//! or allocates beyond [`MAX_BODY`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

/// The largest body that is read or written, in bytes: 4 MiB. A node with thousands of sets stays far below.
pub const MAX_BODY: usize = 4 << 20;

const VERSION: u8 = 2;
const HEADER: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// Info commands or their answers: type 1.
    Info,
    /// Security messages, as a login: type 2.
    Security,
}

/// One message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameType,
    /// All after the header; at most [`MAX_BODY`] bytes.
    pub body: Bytes,
}

/// What is wrong with bytes that should be a frame, or with a command that should go into one.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The other end speaks something else.
    #[error(
        "byte 0 is {0}, not protocol version 2: is this Aerospike's service port, without TLS?"
    )]
    Version(u8),
    /// The other end speaks Aerospike, but neither info nor security.
    #[error("message type {0} is neither info (1) nor security (2)")]
    Type(u8),
    /// Too long to read.
    #[error("a body of {0} bytes is announced; at most {MAX_BODY} are read")]
    TooLong(u64),
    /// A command cannot hold what ends a command.
    #[error("the command {0:?} has a tab or a line end; leave both out")]
    Command(String),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Frames on a byte stream, for both ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

/// A node's answers to one request, in the order in which it gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    answers: Vec<(String, Result<String, InfoError>)>,
    refusal: Option<InfoError>,
}

/// An error that a node gave for a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.spelled())]
pub struct InfoError {
    /// The server's result code; absent in most answers of servers before 7.2.
    pub code: Option<u32>,
    /// Its words, as in `unstable cluster` (7.2 and later) or `unstable-cluster` (before).
    pub text: String,
}

impl FrameType {
    fn byte(self) -> u8 {
        match self {
            Self::Info => 1,
            Self::Security => 2,
        }
    }
}

impl Frame {
    /// A request with these commands, all answered in one round trip.
    ///
    /// # Errors
    ///
    /// A command holds a tab or a line end, or all of them are longer than [`MAX_BODY`].
    pub fn request<S: AsRef<str>>(
        commands: impl IntoIterator<Item = S>,
    ) -> Result<Self, ProtocolError> {
        let mut body = BytesMut::new();
        for command in commands {
            let command = command.as_ref();
            if command.contains(['\n', '\t']) {
                return Err(ProtocolError::Command(command.to_owned()));
            }
            body.put_slice(command.as_bytes());
            body.put_u8(b'\n');
        }
        if body.len() > MAX_BODY {
            return Err(ProtocolError::TooLong(body.len() as u64));
        }
        Ok(Self {
            kind: FrameType::Info,
            body: body.freeze(),
        })
    }

    /// The commands of a request. An unterminated last one is none.
    pub fn commands(&self) -> Vec<String> {
        lines(&self.body).map(text).collect()
    }
}

impl Answers {
    /// Reads an answer's body. An unterminated last line is ignored, and so is a line that answers nothing.
    pub fn parse(body: &[u8]) -> Self {
        let mut all = Self::default();
        for line in lines(body) {
            match line.iter().position(|byte| *byte == b'\t') {
                Some(tab) => {
                    let value = text(&line[tab + 1..]);
                    let value = match InfoError::parse(&value) {
                        Some(error) => Err(error),
                        None => Ok(value),
                    };
                    all.answers.push((text(&line[..tab]), value));
                }
                // So a server answers a request that it does not even look at: not authenticated, timed out.
                None if all.refusal.is_none() => all.refusal = InfoError::parse(&text(line)),
                None => {}
            }
        }
        all
    }

    /// The first answer to this command. One error for the whole request answers every command.
    pub fn get(&self, command: &str) -> Option<Result<&str, &InfoError>> {
        let answer = self.answers.iter().find(|(name, _)| name == command);
        match answer {
            Some((_, Ok(value))) => Some(Ok(value)),
            Some((_, Err(error))) => Some(Err(error)),
            None => self.refusal.as_ref().map(Err),
        }
    }

    /// The error that a node gave instead of any answer.
    pub fn refusal(&self) -> Option<&InfoError> {
        self.refusal.as_ref()
    }

    /// Every error, that for the whole request first.
    pub fn errors(&self) -> impl Iterator<Item = &InfoError> {
        let answers = self.answers.iter().map(|(_, value)| value);
        let errors = answers.filter_map(|value| value.as_ref().err());
        self.refusal.iter().chain(errors)
    }

    /// Adds what a later request on the same connection brought.
    pub fn extend(&mut self, later: Self) {
        self.answers.extend(later.answers);
        self.refusal = self.refusal.take().or(later.refusal);
    }
}

impl InfoError {
    /// Reads `ERROR:<code>:<text>`, `ERROR::<text>` and `FAIL` in all their forms; none for a value that is no error.
    pub fn parse(value: &str) -> Option<Self> {
        let rest = ["ERROR", "FAIL"]
            .iter()
            .find_map(|word| value.strip_prefix(word))?;
        // A value that only begins with one of the words, as FAILOVER, is none.
        let Some(rest) = rest.strip_prefix(':') else {
            return rest.is_empty().then(|| Self {
                code: None,
                text: value.to_owned(),
            });
        };
        let (code, text) = match rest.split_once(':') {
            Some(("", text)) => (None, text),
            Some((code, text)) => match code.parse() {
                Ok(code) => (Some(code), text),
                Err(_) => (None, rest),
            },
            None => match rest.parse() {
                Ok(code) => (Some(code), ""),
                Err(_) => (None, rest),
            },
        };
        Some(Self {
            code,
            text: text.to_owned(),
        })
    }

    /// Whether the node wants to know who is asking, or does not let them: security codes 80 to 82.
    pub fn wants_authentication(&self) -> bool {
        let text = self.text.replace(['-', '_'], " ");
        matches!(self.code, Some(80..=82))
            || text.contains("not authenticated")
            || text.contains("role violation")
    }

    fn spelled(&self) -> String {
        match (self.code, self.text.as_str()) {
            (Some(code), "") => format!("error {code}"),
            (Some(code), text) => format!("{text} (code {code})"),
            (None, "") => "an error without words".to_owned(),
            (None, text) => text.to_owned(),
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = ProtocolError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        // What is wrong in the first two bytes is said before the rest has come: an impostor may never send it.
        if let Some(&version) = bytes.first()
            && version != VERSION
        {
            return Err(ProtocolError::Version(version));
        }
        let kind = match bytes.get(1) {
            None => return Ok(None),
            Some(1) => FrameType::Info,
            Some(2) => FrameType::Security,
            Some(other) => return Err(ProtocolError::Type(*other)),
        };
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let announced = u64::from_be_bytes(*header) & 0xffff_ffff_ffff;
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > MAX_BODY {
            return Err(ProtocolError::TooLong(announced));
        }
        if bytes.len() < HEADER + length {
            // Room is made as bytes come, not as they are promised.
            return Ok(None);
        }
        bytes.advance(HEADER);
        let body = bytes.split_to(length).freeze();
        Ok(Some(Frame { kind, body }))
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = ProtocolError;

    fn encode(&mut self, frame: Frame, bytes: &mut BytesMut) -> Result<(), ProtocolError> {
        let length = frame.body.len();
        if length > MAX_BODY {
            return Err(ProtocolError::TooLong(length as u64));
        }
        bytes.reserve(HEADER + length);
        let kind = u64::from(frame.kind.byte()) << 48;
        bytes.put_u64(u64::from(VERSION) << 56 | kind | length as u64);
        bytes.put_slice(&frame.body);
        Ok(())
    }
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn header(kind: u8, length: u64) -> BytesMut {
        let mut bytes = BytesMut::new();
        bytes.put_u64(u64::from(VERSION) << 56 | u64::from(kind) << 48 | length);
        bytes
    }

    fn error(code: impl Into<Option<u32>>, text: &str) -> Option<InfoError> {
        Some(InfoError {
            code: code.into(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn several_commands_go_out_in_one_frame() {
        let mut bytes = BytesMut::new();
        let frame = Frame::request(["build", "node"]).unwrap();
        FrameCodec.encode(frame, &mut bytes).unwrap();
        assert_eq!(&bytes[..], b"\x02\x01\0\0\0\0\0\x0bbuild\nnode\n");
    }

    #[test]
    fn a_command_with_a_line_end_is_refused_by_name() {
        let refused = Frame::request(["build\nnode"]).unwrap_err().to_string();
        assert!(refused.contains(r#""build\nnode""#), "{refused}");
    }

    #[test]
    fn answers_are_found_by_command_and_an_unterminated_last_line_is_ignored() {
        let answers = Answers::parse(b"build\t8.1.0.0\nnode\tBB9\nuptime\t12");
        assert_eq!(answers.get("build"), Some(Ok("8.1.0.0")));
        assert_eq!(answers.get("node"), Some(Ok("BB9")));
        assert_eq!(answers.get("uptime"), None);
    }

    #[test]
    fn errors_are_read_in_every_form() {
        let cases = [
            ("ERROR:7:unstable cluster", error(7, "unstable cluster")),
            ("ERROR::unstable-cluster", error(None, "unstable-cluster")),
            ("ERROR:4:a:b", error(4, "a:b")),
            ("ERROR:80", error(80, "")),
            ("ERROR", error(None, "ERROR")),
            ("ERROR:wrong", error(None, "wrong")),
            ("ERROR:x:y", error(None, "x:y")),
            ("FAIL", error(None, "FAIL")),
            ("FAIL:4:bad", error(4, "bad")),
            ("FAILOVER", None),
            ("ok", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(InfoError::parse(value), expected, "{value:?}");
        }
    }

    #[test]
    fn an_error_without_a_command_answers_every_command() {
        let answers = Answers::parse(b"ERROR:80:not authenticated\n");
        let refused = answers.get("build").unwrap().unwrap_err();
        assert!(refused.wants_authentication());
        assert_eq!(answers.errors().count(), 1);
    }

    #[test]
    fn a_hostile_length_is_refused_before_anything_is_stored() {
        for length in [MAX_BODY as u64 + 1, 0xffff_ffff_ffff] {
            let mut bytes = header(1, length);
            let refused = FrameCodec.decode(&mut bytes).unwrap_err();
            assert!(matches!(refused, ProtocolError::TooLong(n) if n == length));
        }
        let mut bytes = header(1, MAX_BODY as u64);
        assert!(FrameCodec.decode(&mut bytes).unwrap().is_none());
        assert!(bytes.capacity() < MAX_BODY, "room is made as bytes come");
    }

    #[test]
    fn a_stranger_is_known_by_its_first_bytes() {
        let mut http = BytesMut::from("H");
        assert!(matches!(
            FrameCodec.decode(&mut http),
            Err(ProtocolError::Version(b'H'))
        ));
        let mut message = header(3, 0);
        assert!(matches!(
            FrameCodec.decode(&mut message),
            Err(ProtocolError::Type(3))
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in vec(any::<u8>(), 0..400),
            kind in 0u8..4,
            length in 0u64..500,
        ) {
            let mut framed = header(kind, length);
            framed.put_slice(&bytes);
            for mut input in [BytesMut::from(&bytes[..]), framed] {
                while let Ok(Some(frame)) = FrameCodec.decode(&mut input) {
                    prop_assert!(frame.body.len() <= MAX_BODY);
                    Answers::parse(&frame.body);
                    frame.commands();
                }
            }
            Answers::parse(&bytes);
        }

        #[test]
        fn a_request_survives_the_wire_however_it_is_cut(
            commands in vec("[a-z:;=/-]{0,30}", 0..8),
            cut in 1usize..20,
        ) {
            let mut wire = BytesMut::new();
            FrameCodec.encode(Frame::request(&commands).unwrap(), &mut wire).unwrap();
            let mut bytes = BytesMut::new();
            let mut frames = Vec::new();
            for piece in wire.chunks(cut) {
                bytes.put_slice(piece);
                frames.extend(FrameCodec.decode(&mut bytes).unwrap());
            }
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(frames.len(), 1);
            prop_assert_eq!(frames[0].commands(), commands);
        }

        #[test]
        fn every_answer_comes_back_as_it_was_given(
            answers in vec(("[a-z]{1,9}", "[^\n\t\r]{0,40}"), 0..8),
        ) {
            let body: String = answers.iter().map(|(c, v)| format!("{c}\t{v}\n")).collect();
            let parsed = Answers::parse(body.as_bytes());
            for (command, _) in &answers {
                let (_, value) = answers.iter().find(|(name, _)| name == command).unwrap();
                match parsed.get(command).unwrap() {
                    Ok(found) => prop_assert_eq!(found, value),
                    Err(_) => prop_assert!(InfoError::parse(value).is_some()),
                }
            }
        }
    }
}
