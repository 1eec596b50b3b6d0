//! How Kubernetes writes kinds: the core group is left out.

/// `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// The one name that cannot be confused with another kind's: `pods`, `deployments.apps`.
pub fn resource(plural: &str, group: &str) -> String {
    match group {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_group_is_left_out() {
        assert_eq!(api_version("", "v1"), "v1");
        assert_eq!(api_version("apps", "v1"), "apps/v1");
        assert_eq!(resource("pods", ""), "pods");
        assert_eq!(resource("deployments", "apps"), "deployments.apps");
    }
}
