//! What the API server says that it was asked: the proof of "one watch per kind", from the other side.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use super::Error;

/// The requests of one run of the API server, in the order of their first mention.
#[derive(Clone, Debug, Default)]
pub struct AuditLog {
    /// All of them.
    pub requests: Vec<AuditedRequest>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct AuditedRequest {
    /// As the client sent it.
    pub user_agent: String,
    /// Who it was.
    pub user: String,
    /// "list", "watch", "get", ...
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// "pods"; empty for what is no resource.
    pub resource: String,
    /// "log", "status"; empty for the object itself.
    pub subresource: String,
    /// Empty for the core group.
    pub group: String,
    /// Empty for a request about all namespaces.
    pub namespace: String,
    /// HTTP status, once there was one.
    pub code: Option<u16>,
    /// The response has begun and not ended: of a watch, that it is open.
    pub open: bool,
}

impl AuditLog {
    /// Requests by clients whose User-Agent begins with `user_agent`, with this verb, for this resource.
    pub fn requests<'a>(
        &'a self,
        user_agent: &'a str,
        verb: &'a str,
        resource: &'a str,
    ) -> impl Iterator<Item = &'a AuditedRequest> {
        self.requests.iter().filter(move |r| {
            r.user_agent.starts_with(user_agent) && r.verb == verb && r.resource == resource
        })
    }

    /// How many such watches are open now.
    pub fn open_watches(&self, user_agent: &str, resource: &str) -> usize {
        self.requests(user_agent, "watch", resource)
            .filter(|r| r.open)
            .count()
    }

    /// How many such watches there have been.
    pub fn watches(&self, user_agent: &str, resource: &str) -> usize {
        self.requests(user_agent, "watch", resource).count()
    }

    /// How many LIST requests there have been; a paged list is one for each page.
    pub fn lists(&self, user_agent: &str, resource: &str) -> usize {
        self.requests(user_agent, "list", resource).count()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: ObjectRef,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    api_group: String,
    namespace: String,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
}

/// Reads a log that is being written.
pub(super) fn read(path: &Path) -> Result<AuditLog, Error> {
    let text = fs::read_to_string(path)?;
    parse(&text)
}

fn parse(text: &str) -> Result<AuditLog, Error> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut log = AuditLog::default();
    // What stands after the last newline is still being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let line: Line = serde_json::from_str(line)?;
        let place = *places.entry(line.audit_id).or_insert_with(|| {
            log.requests.push(AuditedRequest {
                user_agent: line.user_agent,
                user: line.user.username,
                verb: line.verb,
                uri: line.request_uri,
                resource: line.object_ref.resource,
                subresource: line.object_ref.subresource,
                group: line.object_ref.api_group,
                namespace: line.object_ref.namespace,
                code: None,
                open: false,
            });
            log.requests.len() - 1
        });
        let request = &mut log.requests[place];
        request.open = line.stage == "ResponseStarted";
        request.code = line
            .response_status
            .and_then(|status| status.code)
            .or(request.code);
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn line(id: &str, stage: &str, agent: &str, verb: &str) -> String {
        format!(
            r#"{{"auditID":"{id}","stage":"{stage}","requestURI":"/api/v1/pods","verb":"{verb}",
            "user":{{"username":"u"}},"userAgent":"{agent}","objectRef":{{"resource":"pods"}},
            "responseStatus":{{"code":200}}}}"#
        )
        .replace('\n', "")
            + "\n"
    }

    #[test]
    fn a_watch_is_open_until_its_response_is_complete() {
        let text = [
            line("1", "ResponseStarted", "informerd/1", "watch"),
            line("2", "ResponseStarted", "informerd/1", "watch"),
            line("1", "ResponseComplete", "informerd/1", "watch"),
            line("3", "ResponseStarted", "kubectl", "watch"),
            line("4", "ResponseComplete", "informerd/1", "list"),
            r#"{"auditID":"5","sta"#.into(),
        ]
        .concat();
        let log = parse(&text).unwrap();
        assert_eq!(log.open_watches("informerd/", "pods"), 1);
        assert_eq!(log.watches("informerd/", "pods"), 2);
        assert_eq!(log.lists("informerd/", "pods"), 1);
        assert_eq!(log.open_watches("informerd/", "nodes"), 0);
    }
}
