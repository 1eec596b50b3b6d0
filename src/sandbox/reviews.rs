//! Who somebody is and what they may do, for those who ask before they do it (`kubectl auth`): nobody in particular,
//! and everything.

use serde_json::{Value, json};

use crate::kubeapi::Target;

/// The status of a review of the caller that is posted; `None` where it is none.
pub(super) fn status(target: &Target) -> Option<Value> {
    if (target.verb, target.version.as_str()) != ("create", "v1") {
        return None;
    }
    Some(match (target.group.as_str(), target.plural.as_str()) {
        ("authorization.k8s.io", "selfsubjectaccessreviews") => {
            json!({"allowed": true, "reason": "the sandbox admits everything"})
        }
        ("authorization.k8s.io", "selfsubjectrulesreviews") => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            json!({"userInfo": {"username": "system:anonymous", "groups": ["system:unauthenticated"]}})
        }
        _ => return None,
    })
}
