//! One pass over the JSON of an object that checks it, cuts away what the rules drop, and notes where the values
//! to be read stand. Nothing is built: what stays is a few ranges of the text that came, so numbers, escapes and
//! unknown fields survive to the byte. White space between values goes.
//!
//! Written by hand because a visitor of serde_json has to name every member of an object on the way to a rule,
//! and copies each piece that it keeps; this costs little more than finding where the object ends. It accepts
//! what serde_json accepts when it skips a value (a property test holds the two together), and keys on the way to
//! a value that is read must not repeat, since readers disagree on which one counts.

use std::{borrow::Cow, ops::Range};

use super::rules::{Fate, Node};

/// Why a text is not JSON. Positions are in bytes, from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScanError {
    /// The text ends inside a value.
    #[error("the JSON ends too early, at byte {0}")]
    End(usize),
    /// Something else was expected here.
    #[error("the JSON is wrong at byte {at}: {expected} expected, found {:?}", char::from(*.found))]
    Unexpected {
        /// Where.
        at: usize,
        /// What should stand there.
        expected: &'static str,
        /// The byte that does.
        found: u8,
    },
    /// A key that must be unique stands twice in one object.
    #[error("the key {key} stands twice in one object, the second time at byte {at}")]
    Repeated {
        /// The key, as written.
        key: String,
        /// Where it stands the second time.
        at: usize,
    },
}

/// What a pass found: the parts of the text that stay, in order, and the values that were asked for.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Non-empty, in order, never touching each other.
    kept: Vec<Range<usize>>,
    captured: Vec<Option<Range<usize>>>,
    /// The closing bytes of what is open within the value being skipped.
    open: Vec<u8>,
    /// Where the part that is being kept began; `None` while dropping.
    run: Option<usize>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str, slots: usize) -> Self {
        Self {
            text,
            at: 0,
            kept: Vec::with_capacity(16),
            captured: vec![None; slots],
            open: Vec::with_capacity(16),
            run: None,
        }
    }

    /// Reads the whole text, which must be one object. What stays are its members, without the braces; returns
    /// whether there is one. After an error the values captured until then can still be read.
    pub(super) fn object(&mut self, root: &Node) -> Result<bool, Box<ScanError>> {
        self.space();
        if self.peek()? != b'{' {
            return Err(self.unexpected("an object"));
        }
        let any = self.members(root)?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.unexpected("the end"));
        }
        Ok(any)
    }

    /// How many bytes stay.
    pub(super) fn len(&self) -> usize {
        self.kept.iter().map(Range::len).sum()
    }

    /// Appends what stays.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for range in &self.kept {
            out.extend_from_slice(&self.text.as_bytes()[range.clone()]);
        }
    }

    /// The text of a captured value.
    pub(super) fn captured(&self, slot: usize) -> Option<&'a str> {
        Some(&self.text[self.captured.get(slot)?.clone()?])
    }

    /// The members of an object, from its opening to its closing brace.
    fn members(&mut self, node: &Node) -> Result<bool, Box<ScanError>> {
        let mut any = false;
        let mut seen = 0_u64;
        let mut comma = self.at;
        self.at += 1;
        self.space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(false);
        }
        loop {
            let start = self.at;
            let key = self.key()?;
            let end = self.at;
            self.space();
            let colon = self.at;
            self.expect(b':', "':'")?;
            self.space();
            let first = self.peek()?;
            let child = key.and_then(|key| node.field(&key));
            if let Some((place, below)) = child
                && below.reads()
                && place < 64
            {
                if seen & 1 << place != 0 {
                    return Err(self.repeated(start, end));
                }
                seen |= 1 << place;
            }
            let child = child.map(|(_, below)| below);
            let emit = child.map_or(node.rest() == Fate::Keep, |below| below.emits(first));
            if emit {
                if any {
                    self.keep(comma..comma + 1);
                }
                self.keep(start..end);
                self.keep(colon..colon + 1);
                any = true;
            }
            self.value(child, emit)?;
            self.space();
            comma = self.at;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return Err(self.unexpected("',' or '}'")),
            }
            self.space();
        }
        self.at += 1;
        Ok(any)
    }

    /// The items of an array, from its opening to its closing bracket.
    fn items(&mut self, node: &Node) -> Result<(), Box<ScanError>> {
        let mut any = false;
        let mut comma = self.at;
        self.at += 1;
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        let child = node.items.as_deref();
        loop {
            let first = self.peek()?;
            let emit = child.map_or(node.rest() == Fate::Keep, |below| below.emits(first));
            if emit {
                if any {
                    self.keep(comma..comma + 1);
                }
                any = true;
            }
            self.value(child, emit)?;
            self.space();
            comma = self.at;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(self.unexpected("',' or ']'")),
            }
            self.space();
        }
        self.at += 1;
        Ok(())
    }

    /// A value at its first byte, with what its node says of it.
    fn value(&mut self, node: Option<&Node>, emit: bool) -> Result<(), Box<ScanError>> {
        let start = self.at;
        let first = self.peek()?;
        match node {
            Some(node) if !node.is_leaf() && matches!(first, b'{' | b'[') => {
                if emit {
                    self.keep(start..start + 1);
                }
                if first == b'{' {
                    self.members(node)?;
                } else {
                    self.items(node)?;
                }
                if emit {
                    self.keep(self.at - 1..self.at);
                }
            }
            _ => {
                self.run = emit.then_some(start);
                self.skip()?;
                if let Some(run) = self.run.take() {
                    self.keep(run..self.at);
                }
            }
        }
        for &slot in node.iter().flat_map(|node| &node.captures) {
            self.captured[slot] = Some(start..self.at);
        }
        Ok(())
    }

    fn keep(&mut self, range: Range<usize>) {
        match self.kept.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.kept.push(range),
        }
    }

    /// Passes one value of any kind, however deep.
    fn skip(&mut self) -> Result<(), Box<ScanError>> {
        loop {
            let byte = self.peek()?;
            match byte {
                b'"' => self.string()?,
                b'{' | b'[' => {
                    let close = byte + 2; // in ASCII both closing brackets stand two after their opening
                    self.at += 1;
                    self.space();
                    if self.peek()? == close {
                        self.at += 1;
                    } else {
                        self.open.push(close);
                        if byte == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                _ => return Err(self.unexpected("a value")),
            }
            loop {
                let Some(&close) = self.open.last() else {
                    return Ok(());
                };
                self.space();
                let byte = self.peek()?;
                if byte == b',' {
                    self.at += 1;
                    self.space();
                    if close == b'}' {
                        self.name()?;
                    }
                    break;
                }
                if byte != close {
                    return Err(self.unexpected(if close == b'}' {
                        "',' or '}'"
                    } else {
                        "',' or ']'"
                    }));
                }
                self.at += 1;
                self.open.pop();
            }
        }
    }

    /// Passes a key and its colon, to the first byte of the value.
    fn name(&mut self) -> Result<(), Box<ScanError>> {
        if self.peek()? != b'"' {
            return Err(self.unexpected("a key"));
        }
        self.string()?;
        self.space();
        self.expect(b':', "':'")?;
        self.space();
        Ok(())
    }

    /// A key, decoded. `None` for one with half a surrogate pair, which has no text and so no rule can name it.
    fn key(&mut self) -> Result<Option<Cow<'a, str>>, Box<ScanError>> {
        if self.peek()? != b'"' {
            return Err(self.unexpected("a key"));
        }
        let start = self.at;
        self.string()?;
        let raw = &self.text[start + 1..self.at - 1];
        if !raw.contains('\\') {
            return Ok(Some(Cow::Borrowed(raw)));
        }
        Ok(serde_json::from_str(&self.text[start..self.at])
            .ok()
            .map(Cow::Owned))
    }

    /// Passes a string, from quote to quote.
    #[inline]
    fn string(&mut self) -> Result<(), Box<ScanError>> {
        let bytes = self.text.as_bytes();
        let at = plain_until(bytes, self.at + 1);
        if bytes.get(at) == Some(&b'"') {
            self.at = at + 1;
            return Ok(());
        }
        self.string_from(at)
    }

    /// Passes the rest of a string that has an escape here, or the end of the text near.
    #[inline(never)]
    fn string_from(&mut self, mut at: usize) -> Result<(), Box<ScanError>> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(at) {
                None => return Err(ScanError::End(bytes.len()).into()),
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at = at + 1;
                    at = match self.peek()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at + 2,
                        b'u' => self.hex(at + 2)?,
                        _ => return Err(self.unexpected("an escape")),
                    };
                    at = plain_until(bytes, at);
                }
                Some(0..0x20) => {
                    self.at = at;
                    return Err(self.unexpected("no control character"));
                }
                Some(_) => at += 1,
            }
        }
    }

    /// The four digits of a `\u` escape; returns where they end.
    fn hex(&mut self, from: usize) -> Result<usize, Box<ScanError>> {
        for at in from..from + 4 {
            self.at = at;
            if !self.peek()?.is_ascii_hexdigit() {
                return Err(self.unexpected("a hexadecimal digit"));
            }
        }
        Ok(from + 4)
    }

    fn number(&mut self) -> Result<(), Box<ScanError>> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        let bytes = self.text.as_bytes();
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Box<ScanError>> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unexpected("a digit"));
        }
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &'static str) -> Result<(), Box<ScanError>> {
        for &expected in word.as_bytes() {
            self.expect(expected, word)?;
        }
        Ok(())
    }

    /// Passes white space, and cuts it out of what is being kept. Rare: upstream writes compact JSON.
    #[inline]
    fn space(&mut self) {
        if self
            .text
            .as_bytes()
            .get(self.at)
            .is_some_and(|byte| *byte <= b' ')
        {
            self.pass_space();
        }
    }

    #[cold]
    fn pass_space(&mut self) {
        let start = self.at;
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        if let Some(run) = self.run {
            self.keep(run..start);
            self.run = Some(self.at);
        }
    }

    #[inline]
    fn peek(&self) -> Result<u8, Box<ScanError>> {
        self.text
            .as_bytes()
            .get(self.at)
            .copied()
            .ok_or_else(|| ScanError::End(self.at).into())
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Box<ScanError>> {
        if self.peek()? != byte {
            return Err(self.unexpected(expected));
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    fn unexpected(&self, expected: &'static str) -> Box<ScanError> {
        Box::new(match self.text.as_bytes().get(self.at) {
            Some(&found) => ScanError::Unexpected {
                at: self.at,
                expected,
                found,
            },
            None => ScanError::End(self.at),
        })
    }

    #[cold]
    fn repeated(&self, start: usize, end: usize) -> Box<ScanError> {
        Box::new(ScanError::Repeated {
            key: self.text[start..end].to_owned(),
            at: start,
        })
    }
}

/// Where the first quote, backslash or control character stands from `at` on, looking at eight bytes at a time; or
/// where fewer than eight are left.
#[inline]
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let special = special(u64::from_le_bytes(chunk));
        if special != 0 {
            return at + (special.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at
}

/// Marks (by its top bit) the first of eight bytes, lowest first, that is a quote, a backslash or a control
/// character; bytes after it may be marked wrongly, since the subtractions borrow.
fn special(bytes: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let quote = zero(bytes ^ (ONES * b'"' as u64));
    let backslash = zero(bytes ^ (ONES * b'\\' as u64));
    let control = bytes.wrapping_sub(ONES * 0x20) & !bytes;
    (quote | backslash | control) & TOPS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    /// Scans with nothing to say of what is inside, and gives what stays.
    fn scanned(text: &str) -> Option<String> {
        let mut scan = Scan::new(text, 0);
        scan.object(&Node::new(Fate::Keep)).ok()?;
        let mut out = Vec::new();
        scan.write(&mut out);
        assert_eq!(out.len(), scan.len());
        Some(format!("{{{}}}", String::from_utf8(out).unwrap()))
    }

    #[track_caller]
    fn agrees(value: &str) {
        let text = format!("{{\"a\":{value}}}");
        let accepted = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        match scanned(&text) {
            None => assert!(!accepted, "refused, and serde_json does not: {text}"),
            Some(kept) => {
                assert!(accepted, "accepted, and serde_json does not: {text}");
                let parsed = |text: &str| {
                    serde_json::from_str::<serde_json::Value>(text).map_err(|e| e.to_string())
                };
                if let Ok(whole) = parsed(&text) {
                    assert_eq!(parsed(&kept), Ok(whole));
                }
            }
        }
    }

    #[test]
    fn it_accepts_what_serde_json_accepts() {
        for value in [
            "0",
            "-0",
            "00",
            "01",
            "-",
            "-a",
            "1.",
            ".1",
            "1.5",
            "1e",
            "1e+",
            "1e-7",
            "1E9",
            "+1",
            "1.e3",
            "0e0",
            "1x",
            "true",
            "tru",
            "truee",
            "null",
            "nul",
            "false",
            "fals",
            "True",
            "NaN",
            r#""""#,
            r#"""#,
            r#""\"#,
            r#""\""#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u12g4""#,
            r#""\u1234""#,
            r#""\ud800""#,
            "\"\n\"",
            "\"\t\"",
            "\"\u{7f}\"",
            "\"\u{1f}\"",
            "\"1234567\u{1f}\"",
            "\"12345678é\"",
            "\"1234567\\\\\"",
            "[]",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1,2]",
            "[[],[[]]]",
            "[}",
            "]",
            "{",
            "{}",
            "{]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":1,"b":2}"#,
            r#"{1:2}"#,
            " 1 ",
            "\u{a0}1",
            "\u{b}1",
            "\u{c}1",
            "\u{0}",
            "1}",
            "1} ",
            "1}x",
            "1}}",
            "",
        ] {
            agrees(value);
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json_on_anything(
            value in "([\\[\\]{},:]|\"a\"|\"é\\\\\"|1|-|0|\\.|e|true|null| |\n){0,12}|[\\x00-\\x7fé\"\\\\]{0,20}"
        ) {
            agrees(&value);
        }

        #[test]
        fn it_agrees_with_serde_json_on_strings(inner in "([a-z]{0,9}|\\\\[u\"\\\\/bfnrtx]|[0-9a-fA-F]{4}|\"|é|\u{1}){0,8}") {
            agrees(&format!("\"{inner}\""));
        }

        #[test]
        fn the_marks_of_eight_bytes_begin_at_the_first_special_one(bytes: [u8; 8]) {
            let first = bytes.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
            let marks = special(u64::from_le_bytes(bytes));
            prop_assert_eq!((marks != 0).then(|| (marks.trailing_zeros() / 8) as usize), first);
        }
    }
}
