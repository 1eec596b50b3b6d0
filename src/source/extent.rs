//! Finds where a JSON value ends, in bytes that may come in pieces and need not be UTF-8.
//!
//! serde_json needs the whole value, and one bad byte in one object costs it the page. This looks at nothing but
//! strings and brackets; whether what is between them is JSON is for the decoder of objects to say.

/// The way through one value.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    depth: usize,
    string: bool,
    escaped: bool,
    scalar: bool,
}

impl Extent {
    /// Goes on from `at`, where the value begins or the last call left off. Whether the value has ended; `at` is
    /// then behind it, else at the end of the bytes.
    pub(super) fn scan(&mut self, bytes: &[u8], at: &mut usize) -> bool {
        while *at < bytes.len() {
            if self.string {
                if self.skip_string(bytes, at) && self.depth == 0 {
                    return true;
                }
                continue;
            }
            let byte = bytes[*at];
            if self.scalar {
                if matches!(
                    byte,
                    b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\n' | b'\r'
                ) {
                    return true;
                }
                *at += 1;
                continue;
            }
            *at += 1;
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return true;
                    }
                }
                _ if self.depth == 0 => self.scalar = true,
                _ => {}
            }
        }
        false
    }

    /// Whether the string has ended.
    fn skip_string(&mut self, bytes: &[u8], at: &mut usize) -> bool {
        if std::mem::take(&mut self.escaped) {
            *at += 1;
            return false;
        }
        match memchr::memchr2(b'"', b'\\', &bytes[*at..]) {
            None => *at = bytes.len(),
            Some(found) => {
                *at += found + 1;
                self.escaped = bytes[*at - 1] == b'\\';
                self.string = self.escaped;
            }
        }
        !self.string
    }
}

/// The first member called `name` of the object that `json` is; the bytes of its value.
pub(super) fn member<'a>(json: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    let space = |at: &mut usize| {
        while json.get(*at).is_some_and(u8::is_ascii_whitespace) {
            *at += 1;
        }
    };
    space(&mut at);
    if json.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    loop {
        space(&mut at);
        let key = at;
        if json.get(at) != Some(&b'"') || !Extent::default().scan(json, &mut at) {
            return None;
        }
        let key = &json[key + 1..at - 1];
        space(&mut at);
        if json.get(at) != Some(&b':') {
            return None;
        }
        at += 1;
        space(&mut at);
        let value = at;
        if !Extent::default().scan(json, &mut at) {
            return None;
        }
        if key == name {
            return Some(&json[value..at]);
        }
        space(&mut at);
        if json.get(at) != Some(&b',') {
            return None;
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(json: &[u8]) -> Option<usize> {
        let mut at = 0;
        Extent::default().scan(json, &mut at).then_some(at)
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        for value in [
            r#"{"a":[1,{"b":"}\"]"}],"c":{}}"#,
            r#""a\\\"b""#,
            "[]",
            "[[[]]]",
            r#"{"\\":"\\"}"#,
        ] {
            assert_eq!(
                end(format!("{value},1").as_bytes()),
                Some(value.len()),
                "{value}"
            );
            assert_eq!(end(&value.as_bytes()[..value.len() - 1]), None, "{value}");
        }
        assert_eq!(end(b"12.5e3}"), Some(6));
        assert_eq!(end(b"null ,"), Some(4));
        assert_eq!(end(b"12"), None, "more digits may come");
        assert_eq!(end(b"\"\xff\xfe\"x"), Some(4));
    }

    #[test]
    fn a_member_is_found_wherever_it_stands() {
        let json = br#" { "object" : {"type":"no"} , "type":"ADDED", "n": 1 }"#;
        assert_eq!(member(json, b"type"), Some(&br#""ADDED""#[..]));
        assert_eq!(member(json, b"object"), Some(&br#"{"type":"no"}"#[..]));
        assert_eq!(member(json, b"n"), Some(&b"1"[..]));
        assert_eq!(member(json, b"x"), None);
        for wrong in [
            &b""[..],
            b"[]",
            b"{",
            b"{\"a\"",
            b"{\"a\":",
            b"{\"a\":1",
            b"{a:1}",
            b"{\"a\" 1}",
        ] {
            assert_eq!(member(wrong, b"b"), None);
        }
    }

    /// Any JSON value.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
            r#"[\\"{}\[\]]{0,6}"#.prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_end_is_the_same_however_the_value_is_cut(value in json(), cuts in proptest::collection::vec(1..9_usize, 0..40)) {
            let text = value.to_string();
            let bytes = format!("{text},\"rest\"").into_bytes();
            let (mut extent, mut at, mut have) = (Extent::default(), 0, 0);
            for cut in cuts.into_iter().chain([bytes.len()]) {
                have = (have + cut).min(bytes.len());
                if extent.scan(&bytes[..have], &mut at) {
                    break;
                }
                prop_assert_eq!(at, have);
            }
            prop_assert_eq!(at, text.len());
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            let mut at = 0;
            let ended = Extent::default().scan(&bytes, &mut at);
            prop_assert!(ended && at > 0 || at == bytes.len());
            let _ = member(&bytes, b"x");
        }
    }
}
