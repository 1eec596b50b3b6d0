//! The parameters of a request: `ListOptions`, `GetOptions` and `TableOptions` as the API server reads and checks
//! them.

use std::borrow::Cow;

use super::{
    route::percent_decoded,
    status::{Invalid, Status},
};
use crate::{
    cache::Identity,
    object::selector::{
        FieldSelector, FieldSelectorError, LabelSelector, MAX_BYTES as MAX_SELECTOR, Selector,
    },
};

/// A request's parameters, decoded.
#[derive(Clone, Debug, Default)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Which version of the objects is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// None was named: the most recent.
    Unset,
    /// `0`: whatever is at hand.
    Any,
    /// This one, or a later one.
    AtLeast(u64),
    /// Just this one.
    Exactly(u64),
}

/// `ListOptions`, checked.
#[derive(Clone, Debug)]
pub(super) struct ListOptions {
    pub(super) selector: Selector,
    /// As given, for those who want to know.
    pub(super) label_selector: String,
    /// As given.
    pub(super) field_selector: String,
    pub(super) version: Version,
    pub(super) limit: Option<usize>,
    pub(super) continue_token: Option<String>,
    pub(super) timeout_seconds: Option<i64>,
    pub(super) bookmarks: bool,
    pub(super) send_initial_events: Option<bool>,
}

impl<'a> Query<'a> {
    /// Of what stands after the question mark.
    pub fn parse(query: Option<&'a str>) -> Self {
        let pairs = query.unwrap_or_default().split('&');
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| &**value)
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// Of a flag: there means yes, but for "false" and "0".
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)
            .map(|value| !value.eq_ignore_ascii_case("false") && value != "0")
    }

    fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(key) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ))
        })
    }
}

/// `+` is a space here.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return Cow::Owned(percent_decoded(&spaced).into_owned());
    }
    percent_decoded(text)
}

impl ListOptions {
    /// Reads and checks them for a kind; `watch` has rules of its own.
    pub(super) fn parse(
        query: &Query<'_>,
        identity: &Identity,
        watch: bool,
    ) -> Result<Self, Status> {
        let (label_selector, field_selector) =
            (query.text("labelSelector"), query.text("fieldSelector"));
        let labels = labels(label_selector)?;
        let fields = fields(field_selector)?;
        let limit = query.number("limit")?.and_then(|limit| {
            let limit = usize::try_from(limit).ok();
            limit.filter(|limit| *limit > 0)
        });
        let timeout_seconds = query.number("timeoutSeconds")?;
        let mut matching = query.text("resourceVersionMatch");
        let version = query.text("resourceVersion");
        let continue_token = Some(query.text("continue")).filter(|token| !token.is_empty());
        let mut send_initial_events = query.flag("sendInitialEvents");
        // A watch that has always begun with what is there asks for it in the old way.
        if watch
            && matching.is_empty()
            && send_initial_events.is_none()
            && ["", "0"].contains(&version)
        {
            (matching, send_initial_events) = (NOT_OLDER, Some(true));
        }
        let problems = if watch {
            watch_problems(matching, continue_token, send_initial_events)
        } else {
            list_problems(matching, version, continue_token, send_initial_events)
        };
        if !problems.is_empty() {
            return Err(Status::invalid("ListOptions", &problems));
        }
        let fields = fields.resolve(&identity.selectable);
        let fields = fields.map_err(|error| not_selectable(identity, &error))?;
        if continue_token.is_some() && !version.is_empty() && version != "0" && !watch {
            let message = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(message));
        }
        let version = match version_of(version, matching, limit.is_some() && !watch) {
            Some(version) => version,
            None => return Err(Status::invalid_version(version, !watch)),
        };
        Ok(Self {
            selector: Selector { labels, fields },
            label_selector: label_selector.to_owned(),
            field_selector: field_selector.to_owned(),
            version,
            limit,
            continue_token: continue_token.map(str::to_owned),
            timeout_seconds,
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            send_initial_events,
        })
    }
}

/// The version that a `get` asks for.
pub(super) fn get_version(query: &Query<'_>) -> Result<Version, Status> {
    let text = query.text("resourceVersion");
    version_of(text, "", false).ok_or_else(|| Status::invalid_version(text, false))
}

/// `None` for what is no number.
fn version_of(text: &str, matching: &str, legacy_exact: bool) -> Option<Version> {
    match text {
        "" => Some(Version::Unset),
        "0" => Some(Version::Any),
        text => Some(match text.parse().ok()? {
            0 => Version::Any,
            // A limit without a match once meant just this version, and still does.
            number if matching == "Exact" || (matching.is_empty() && legacy_exact) => {
                Version::Exactly(number)
            }
            number => Version::AtLeast(number),
        }),
    }
}

fn labels(text: &str) -> Result<LabelSelector, Status> {
    within(text, "label selector")?;
    let selector = text.parse::<LabelSelector>();
    selector.map_err(|error| Status::bad_request(error.to_string()))
}

fn fields(text: &str) -> Result<FieldSelector, Status> {
    within(text, "field selector")?;
    let selector = FieldSelector::parse(text);
    selector.map_err(|error| Status::bad_request(error.to_string()))
}

fn within(text: &str, what: &str) -> Result<(), Status> {
    if text.len() <= MAX_SELECTOR {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "a {what} of {} bytes is too long: the most is {MAX_SELECTOR}",
        text.len()
    )))
}

/// In the words that the API server has for a kind that brings its own paths, and for one that does not.
fn not_selectable(identity: &Identity, error: &FieldSelectorError) -> Status {
    let FieldSelectorError::NotSelectable { path, .. } = error else {
        return Status::bad_request(error.to_string());
    };
    let path = path.selector_form();
    if identity.selectable.paths().next().is_some() || identity.group.contains('.') {
        return Status::bad_request(format!("field label not supported: {path}"));
    }
    Status::bad_request(format!(
        "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    ))
}

fn forbidden(field: &'static str, why: &str) -> Invalid {
    Invalid {
        field,
        reason: "FieldValueForbidden",
        detail: format!("Forbidden: {why}"),
    }
}

fn not_supported(value: &str, supported: &str) -> Invalid {
    Invalid {
        field: MATCH,
        reason: "FieldValueNotSupported",
        detail: format!("Unsupported value: {value:?}: supported values: {supported}"),
    }
}

const MATCH: &str = "resourceVersionMatch";
const INITIAL: &str = "sendInitialEvents";
const NOT_OLDER: &str = "NotOlderThan";

fn list_problems(
    matching: &str,
    version: &str,
    continue_token: Option<&str>,
    send_initial_events: Option<bool>,
) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if !matching.is_empty() {
        if version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            problems.push(forbidden(MATCH, why));
        }
        if continue_token.is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            problems.push(forbidden(MATCH, why));
        }
        if !["Exact", NOT_OLDER].contains(&matching) {
            problems.push(not_supported(matching, r#""Exact", "NotOlderThan", """#));
        }
        if matching == "Exact" && version == "0" {
            let why = r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#;
            problems.push(forbidden(MATCH, why));
        }
    }
    if send_initial_events.is_some() {
        let why = "sendInitialEvents is forbidden for list";
        problems.push(forbidden(INITIAL, why));
    }
    problems
}

fn watch_problems(
    matching: &str,
    continue_token: Option<&str>,
    send_initial_events: Option<bool>,
) -> Vec<Invalid> {
    let mut problems = Vec::new();
    if send_initial_events.is_some() && matching != NOT_OLDER {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        problems.push(forbidden(MATCH, why));
    }
    if !matching.is_empty() {
        if send_initial_events.is_none() {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            problems.push(forbidden(MATCH, why));
        }
        if matching != NOT_OLDER {
            problems.push(not_supported(matching, r#""NotOlderThan""#));
        }
        if continue_token.is_some() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            problems.push(forbidden(MATCH, why));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::kind::tests::pods;

    fn list(query: &str) -> Result<ListOptions, Status> {
        ListOptions::parse(&Query::parse(Some(query)), &pods(), false)
    }

    fn watch(query: &str) -> Result<ListOptions, Status> {
        ListOptions::parse(&Query::parse(Some(query)), &pods(), true)
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(Some(
            "labelSelector=a%3Db%2Cc+in+%28d%29&watch&limit=5&x=%zz",
        ));
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.flag("other"), None);
        assert_eq!(query.get("x"), Some("%zz"));
        for no in ["watch=false", "watch=0", "watch=False"] {
            assert_eq!(Query::parse(Some(no)).flag("watch"), Some(false), "{no}");
        }
    }

    #[test]
    fn a_version_means_what_match_and_limit_make_of_it() {
        for (query, version) in [
            ("", Version::Unset),
            ("resourceVersion=0", Version::Any),
            ("resourceVersion=7", Version::AtLeast(7)),
            (
                "resourceVersion=7&resourceVersionMatch=NotOlderThan&limit=1",
                Version::AtLeast(7),
            ),
            (
                "resourceVersion=7&resourceVersionMatch=Exact",
                Version::Exactly(7),
            ),
            ("resourceVersion=7&limit=1", Version::Exactly(7)),
            ("resourceVersion=7&limit=0", Version::AtLeast(7)),
        ] {
            assert_eq!(list(query).unwrap().version, version, "{query}");
        }
        assert_eq!(
            watch("resourceVersion=7&limit=1").unwrap().version,
            Version::AtLeast(7)
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_the_servers_words() {
        for (wrong, says) in [
            (
                list("resourceVersionMatch=Exact"),
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                list("resourceVersionMatch=Exact&resourceVersion=0"),
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                list("resourceVersionMatch=x&resourceVersion=1"),
                "Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                list("sendInitialEvents=true"),
                "sendInitialEvents is forbidden for list",
            ),
            (
                watch("sendInitialEvents=true"),
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                watch("resourceVersionMatch=NotOlderThan"),
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
        ] {
            let status = wrong.expect_err(says);
            assert_eq!(status.code(), 422);
            assert!(status.message().contains(says), "{}", status.message());
        }
        let status = list("continue=x&resourceVersion=5").expect_err("both");
        assert_eq!(status.code(), 400);
        assert_eq!(list("limit=x").expect_err("no number").code(), 400);
        let status = list("fieldSelector=spec.foo=1").expect_err("no such path");
        assert_eq!(status.message(), "field label not supported: spec.foo");
    }
}
