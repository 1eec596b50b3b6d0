//! What a client certificate says of its owner, as Kubernetes reads it: the common name is the user, each
//! organization a group.
//!
//! Only certificates that rustls has verified come here. Of X.509 this needs two names and a date, for which a
//! hundred lines do what a general parser would take ten crates for. What is not plain DER is refused.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use ring::digest;

use super::identity::{AUTHENTICATED, Identity};

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];
/// 1.3.6.1.4.1.57683.2, by which Kubernetes 1.34 and later know a user's uid.
const UID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Who a certificate is for, and when it ends. `None` if it cannot be told.
pub(crate) fn owner(certificate: &[u8]) -> Option<(Identity, SystemTime)> {
    let mut outer = Der(Der(certificate).expect(SEQUENCE)?);
    let mut inner = Der(outer.expect(SEQUENCE)?);
    // A certificate of version 1, which says no version, is none that we take.
    inner.expect(VERSION)?;
    let (_serial, _algorithm, _issuer) = (inner.next()?, inner.next()?, inner.next()?);
    let mut validity = Der(inner.expect(SEQUENCE)?);
    let _begins = validity.next()?;
    let (tag, text) = validity.next()?;
    let ends = time(tag, text)?;
    let mut identity = Identity::default();
    let mut subject = Der(inner.expect(SEQUENCE)?);
    while !subject.0.is_empty() {
        let mut set = Der(subject.expect(SET)?);
        while !set.0.is_empty() {
            let mut attribute = Der(set.expect(SEQUENCE)?);
            let of = attribute.expect(OBJECT_IDENTIFIER)?;
            let (tag, value) = attribute.next()?;
            match of {
                COMMON_NAME => identity.user = text_of(tag, value)?,
                ORGANIZATION => identity.groups.push(text_of(tag, value)?),
                UID if !identity.uid.is_empty() => return None,
                UID => identity.uid = text_of(tag, value)?,
                _ => {}
            }
        }
    }
    if identity.user.is_empty() {
        return None;
    }
    if !identity.groups.iter().any(|group| group == AUTHENTICATED) {
        identity.groups.push(AUTHENTICATED.to_owned());
    }
    let hash = digest::digest(&digest::SHA256, certificate);
    let id = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
    let id = format!("X509SHA256={}", id.collect::<String>());
    identity.extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![id])]);
    Some((identity, ends))
}

/// What is left to be read of a value.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element's tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of several bytes occur in no name and no date.
        (tag & 0x1f != 0x1f).then_some(())?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, content) = self.next()?;
        (tag == expected).then_some(content)
    }
}

/// A name; without control characters, which could make one look like another.
fn text_of(tag: u8, content: &[u8]) -> Option<String> {
    // UTF8String, NumericString, PrintableString, IA5String: what certificates use that are made today.
    let text = match tag {
        0x0c => std::str::from_utf8(content).ok()?,
        0x12 | 0x13 | 0x16 if content.is_ascii() => std::str::from_utf8(content).ok()?,
        _ => return None,
    };
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, content: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    text.bytes()
        .all(|digit| digit.is_ascii_digit())
        .then_some(())?;
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i8>().ok();
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i16 = text.get(0..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        GENERALIZED_TIME => (text.get(0..4)?.parse().ok()?, 4),
        _ => return None,
    };
    (text.len() == rest + 10).then_some(())?;
    let date = jiff::civil::Date::new(year, number(rest, rest + 2)?, number(rest + 2, rest + 4)?);
    let time = jiff::civil::Time::new(
        number(rest + 4, rest + 6)?,
        number(rest + 6, rest + 8)?,
        number(rest + 8, rest + 10)?,
        0,
    );
    let at = jiff::tz::TimeZone::UTC
        .to_timestamp(date.ok()?.to_datetime(time.ok()?))
        .ok()?;
    let seconds = u64::try_from(at.as_second()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, date_time_ymd};

    use super::*;

    fn made(names: &[(DnType, DnValue)], ends: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (of, name) in names {
            params.distinguished_name.push(of.clone(), name.clone());
        }
        params.not_after = date_time_ymd(ends.0, ends.1, ends.2);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_common_name_is_the_user_and_the_organization_a_group() {
        let certificate = made(
            &[
                (DnType::OrganizationName, utf8("shop:operators")),
                (DnType::CommonName, utf8("jürgen")),
                (DnType::CountryName, utf8("DE")),
            ],
            (2031, 5, 4),
        );
        let (identity, ends) = owner(&certificate).unwrap();
        assert_eq!(identity.user, "jürgen");
        assert_eq!(identity.groups, ["shop:operators", "system:authenticated"]);
        assert_eq!(identity.uid, "");
        let id = &identity.extra[CREDENTIAL_ID][0];
        assert_eq!(id.len(), "X509SHA256=".len() + 64);
        let expected = jiff::civil::date(2031, 5, 4)
            .to_zoned(jiff::tz::TimeZone::UTC)
            .unwrap();
        assert_eq!(ends, SystemTime::from(expected.timestamp()));
    }

    #[test]
    fn a_uid_is_read_where_kubernetes_looks_for_it() {
        let oid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
        let names = [(DnType::CommonName, utf8("alice")), (oid, utf8("u-17"))];
        let (identity, _) = owner(&made(&names, (2060, 1, 1))).unwrap();
        assert_eq!(identity.uid, "u-17");
    }

    #[test]
    fn a_certificate_without_a_user_or_with_a_name_that_hides_something_is_nobodys() {
        assert_eq!(owner(&made(&[], (2031, 1, 1))), None);
        let hidden = [(DnType::CommonName, utf8("alice\u{0}.evil"))];
        assert_eq!(owner(&made(&hidden, (2031, 1, 1))), None);
    }

    #[test]
    fn both_kinds_of_dates_are_read() {
        let at = |tag, text: &str| time(tag, text.as_bytes());
        let at_2031 = at(UTC_TIME, "310504000000Z").unwrap();
        assert_eq!(at(GENERALIZED_TIME, "20310504000000Z"), Some(at_2031));
        for wrong in [
            "",
            "Z",
            "310504Z",
            "311304000000Z",
            "3105040000+0Z",
            "310504000000",
        ] {
            assert_eq!(at(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_beyond_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = owner(&bytes);
        }

        #[test]
        fn a_damaged_certificate_is_read_or_refused(at in 0_usize..2000, with: u8) {
            let mut certificate = made(&[(DnType::CommonName, utf8("alice"))], (2031, 1, 1));
            let at = at % certificate.len();
            certificate[at] = with;
            certificate.truncate(certificate.len() - usize::from(with % 7));
            let _ = owner(&certificate);
        }
    }
}
