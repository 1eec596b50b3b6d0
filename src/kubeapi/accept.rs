//! In which form an answer is wanted, by `Accept`.

use super::status::Status;

/// A form that the protocol has for objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As they are.
    Object,
    /// Metadata only; the version of `meta.k8s.io`, and whether the caller said "list".
    Metadata { version: MetaVersion, list: bool },
    /// Rows and columns.
    Table { version: MetaVersion },
}

/// Of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetaVersion {
    V1,
    V1Beta1,
}

impl MetaVersion {
    /// `meta.k8s.io/v1`.
    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// One of the alternatives of an `Accept` header.
#[derive(Debug)]
pub(super) struct Alternative<'a> {
    pub(super) media_type: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Alternative<'a> {
    pub(super) fn param(&self, name: &str) -> &'a str {
        let found = self.params.iter().find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    }

    /// Whether JSON is one of the types that it takes.
    pub(super) fn takes_json(&self) -> bool {
        ["application/json", "application/*", "*/*"].contains(&self.media_type)
    }
}

/// The alternatives, the preferred ones first; all types where there is no header.
pub(super) fn alternatives(accept: Option<&str>) -> Vec<Alternative<'_>> {
    let accept = accept
        .filter(|text| !text.trim().is_empty())
        .unwrap_or("*/*");
    let mut all: Vec<_> = accept
        .split(',')
        .filter_map(|one| {
            let mut parts = one.split(';').map(str::trim);
            let media_type = parts.next().filter(|it| !it.is_empty())?;
            let params: Vec<_> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                .collect();
            let quality = params.iter().find(|(key, _)| *key == "q");
            let quality = quality.and_then(|(_, value)| value.parse().ok());
            Some(Alternative {
                media_type,
                params,
                quality: quality.unwrap_or(1.0),
            })
        })
        .collect();
    all.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    all
}

impl Form {
    /// The first form that can be had.
    pub(super) fn negotiate(accept: Option<&str>) -> Result<Self, Status> {
        alternatives(accept)
            .iter()
            .filter(|it| it.takes_json())
            .find_map(|it| {
                let version = match (it.param("g"), it.param("v")) {
                    ("", "") if it.param("as").is_empty() => return Some(Self::Object),
                    ("meta.k8s.io", "v1") => MetaVersion::V1,
                    ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
                    _ => return None,
                };
                match it.param("as") {
                    "Table" => Some(Self::Table { version }),
                    "PartialObjectMetadata" => Some(Self::Metadata {
                        version,
                        list: false,
                    }),
                    "PartialObjectMetadataList" => Some(Self::Metadata {
                        version,
                        list: true,
                    }),
                    _ => None,
                }
            })
            .ok_or_else(|| {
                Status::not_acceptable(
                    "only the following media types are accepted: application/json, \
                     application/json;stream=watch",
                )
            })
    }

    /// The same for an answer that is a list, or is none.
    pub(super) fn fits(self, kind: &str, is_list: bool) -> Result<Self, Status> {
        match self {
            Self::Metadata { list: false, .. } if is_list => Err(Status::not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({kind}List)"
            ))),
            Self::Metadata { list: true, .. } if !is_list => Err(Status::not_acceptable(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({kind})"
            ))),
            form => Ok(form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Result<Form, u16> {
        Form::negotiate(Some(accept)).map_err(|status| status.code().as_u16())
    }

    #[test]
    fn the_first_form_that_can_be_had_is_taken() {
        let version = MetaVersion::V1;
        for (accept, expected) in [
            ("", Ok(Form::Object)),
            ("*/*", Ok(Form::Object)),
            ("application/json", Ok(Form::Object)),
            ("application/vnd.kubernetes.protobuf, */*", Ok(Form::Object)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Ok(Form::Table { version }),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                 application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Ok(Form::Metadata {
                    version,
                    list: true,
                }),
            ),
            (
                "application/json;as=Table;v=v9;g=meta.k8s.io, application/json",
                Ok(Form::Object),
            ),
            (
                "application/json;q=0.1, application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                Ok(Form::Table {
                    version: MetaVersion::V1Beta1,
                }),
            ),
            ("application/vnd.kubernetes.protobuf", Err(406)),
            ("application/json;as=Table;v=v9;g=meta.k8s.io", Err(406)),
            ("text/html", Err(406)),
        ] {
            assert_eq!(form(accept), expected, "{accept}");
        }
        assert_eq!(Form::negotiate(None), Ok(Form::Object));
    }

    #[test]
    fn one_object_is_no_list() {
        let of = |list| Form::Metadata {
            version: MetaVersion::V1,
            list,
        };
        assert!(of(true).fits("Pod", true).is_ok());
        assert!(of(false).fits("Pod", false).is_ok());
        assert_eq!(of(true).fits("Pod", false).unwrap_err().code(), 406);
        assert_eq!(of(false).fits("Pod", true).unwrap_err().code(), 406);
    }
}
