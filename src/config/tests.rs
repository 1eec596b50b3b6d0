//! What people write, rightly and wrongly, and what they are told.

use std::path::Path as FilePath;

use proptest::prelude::*;

use super::*;
use crate::upstream::UpstreamSettings;

const NODE: Reads = Reads {
    controller: "node",
    resource: "nodes",
    aliases: &["node", "no"],
    optional: false,
    paths: &[".spec.unschedulable", ".status.conditions"],
};

fn parse(text: &str, args: &ServeArgs) -> Result<Config, ConfigError> {
    read::config(Some((&Arc::from("c.yaml"), text)), args)
}

fn valid(text: &str) -> Config {
    parse(text, &ServeArgs::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn errors(text: &str) -> String {
    parse(text, &ServeArgs::default())
        .expect_err("errors")
        .to_string()
}

/// The errors of a single kind's settings, without the place.
fn kind_error(settings: &str) -> String {
    let text = errors(&format!("kinds:\n- {{resource: pods, {settings}}}\n"));
    let (_, message) = text.split_once(": ").expect("a place");
    message.to_owned()
}

fn example() -> &'static FilePath {
    FilePath::new("deploy/config.example.yaml")
}

#[test]
fn the_example_is_valid_and_shows_every_setting() {
    let said = check(example(), &[NODE]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        said,
        "deploy/config.example.yaml: ok\n\
         listen 127.0.0.1:7443, admin 127.0.0.1:7480, kubeListen 127.0.0.1:7481\n\
         controllers node\n  \
         nodes\n  \
         pods; not in kube-system; labels app.kubernetes.io/part-of=shop,tier!=batch; fields spec.nodeName!=; \
         drops .spec.containers[*].env, .spec.volumes; selectable .spec.priorityClassName\n  \
         deployments.apps; only in shop, checkout; keeps .spec.replicas, .status\n  \
         secrets; metadata only; on first use\n  \
         configmaps; metadata only, whole objects one by one; on first use\n  \
         aerospikeclusters.acko.io\n"
    );
    let text = std::fs::read_to_string(example()).unwrap();
    for key in read::TOP
        .iter()
        .chain(&read::UPSTREAM)
        .chain(&aerospike::AEROSPIKE)
        .chain(&aerospike::PATIENCE)
        .chain(&trust::AUTH)
        .chain(&trust::TLS)
        .chain(&trust::LIMITS)
        .chain(&trust::SENSITIVE)
        .chain(&kind::KEYS)
    {
        assert!(text.contains(&format!("{key}:")), "{key} is not shown");
    }
}

#[test]
fn the_examples_top_level_is_the_default() {
    let text = std::fs::read_to_string(example()).unwrap();
    let shown = valid(&text);
    let mut default = valid("kinds: [pods]");
    default.upstream.user_agent = shown.upstream.user_agent.clone();
    // It is off until it has an address.
    default.kube_listen = shown.kube_listen;
    let (shown, default) = (
        Config {
            kinds: Vec::new(),
            controllers: Vec::new(),
            ..shown
        },
        Config {
            kinds: Vec::new(),
            ..default
        },
    );
    assert_eq!(shown, default);
}

#[test]
fn a_kind_may_differ_from_what_is_said_for_all() {
    let config = valid(
        "journal: {bytes: 1Mi, age: 1m}\n\
         kinds:\n- resource: pods\n  journal: {bytes: 2Mi}\n  tombstones: {count: 7}\n- nodes\n",
    );
    let [pods, nodes] = config.kinds.as_slice() else {
        panic!("two kinds")
    };
    assert_eq!(
        (pods.journal.bytes, pods.journal.age),
        (2 << 20, Duration::from_secs(60))
    );
    assert_eq!(
        (pods.tombstones.count, pods.tombstones.age),
        (7, Duration::from_secs(3600))
    );
    assert_eq!(nodes.journal.bytes, 1 << 20);
    assert_eq!(
        nodes.place,
        Place::At {
            file: "c.yaml".into(),
            line: 6,
            column: 3
        }
    );
}

#[test]
fn flags_add_kinds_and_go_before_the_file() {
    let args = ServeArgs {
        kinds: vec!["pods".to_owned()],
        listen: Some("[::1]:1".to_owned()),
        log_format: Some("json".to_owned()),
        ..ServeArgs::default()
    };
    let config = parse("listen: 127.0.0.1:2\nkinds: [nodes]", &args).unwrap();
    assert_eq!(config.listen.to_string(), "[::1]:1");
    assert_eq!(config.log.format, LogFormat::Json);
    let names: Vec<_> = config
        .kinds
        .iter()
        .map(|kind| kind.resource.as_str())
        .collect();
    assert_eq!(names, ["nodes", "pods"]);
    // Without a file.
    assert_eq!(load(&args).unwrap().kinds.len(), 1);
}

#[test]
fn wrong_flags_are_named() {
    let args = ServeArgs {
        kinds: vec!["pods/log".to_owned(), "no".to_owned(), "no".to_owned()],
        listen: Some("somewhere".to_owned()),
        admin: Some("localhost".to_owned()),
        log_format: Some("xml".to_owned()),
        log_filter: Some("a=b=c".to_owned()),
        ..ServeArgs::default()
    };
    let error = load(&args).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(
        lines[0],
        "--listen somewhere: not an address and port: write an IP address and a port, as in 127.0.0.1:7443"
    );
    assert_eq!(
        lines[1],
        "--admin localhost: not an address and port: write an IP address and a port, as in 127.0.0.1:7480"
    );
    assert_eq!(lines[2], "--log-format xml: write text or json");
    assert!(
        lines[3].starts_with("--log-filter a=b=c: not a filter ("),
        "{error}"
    );
    assert!(
        lines[4].starts_with("--kind pods/log: `pods/log` has a slash, "),
        "{error}"
    );
    assert_eq!(
        lines[5],
        "--kind no: `no` is configured at --kind no already: remove one of them"
    );
    assert_eq!(lines.len(), 6, "{error}");
}

#[test]
fn the_facade_is_off_until_it_has_an_address() {
    let config = valid("kinds: [pods]");
    assert_eq!(config.kube_listen, None);
    assert_eq!(config.facade, FacadeConfig::default());
    let config = valid(
        "kubeListen: 127.0.0.1:7481\nfacade: {passthrough: reads, unset: any}\nkinds: [pods]",
    );
    assert_eq!(config.kube_listen.unwrap().to_string(), "127.0.0.1:7481");
    assert!(config.facade.passthrough && config.facade.unset_is_any);
    let off = ServeArgs {
        kube_listen: Some("off".to_owned()),
        ..ServeArgs::default()
    };
    let config = parse("kubeListen: 127.0.0.1:7481\nkinds: [pods]", &off).unwrap();
    assert_eq!(config.kube_listen, None);
    assert_eq!(
        errors("listen: 127.0.0.1:1\nkubeListen: 127.0.0.1:1\nkinds: [pods]"),
        "configuration: listen, kubeListen: both ports are 127.0.0.1:1: write another one for one of them"
    );
    let error = errors("facade: {passthrough: writes}\nkinds: [pods]");
    assert!(error.contains("none") && error.contains("reads"), "{error}");
}

#[test]
fn no_kinds_at_all_shows_the_smallest_configuration() {
    let smallest = "name at least one kind, with the flag --kind pods or in the file as\n\nkinds:\n- resource: pods\n";
    for text in ["", "kinds:", "kinds: []", "listen: 127.0.0.1:1"] {
        assert_eq!(
            errors(text),
            format!("c.yaml:1:1: kinds: nothing to watch: {smallest}"),
            "{text}"
        );
    }
    let error = load(&ServeArgs::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("configuration: kinds: nothing to watch: {smallest}")
    );
    valid("kinds:\n- resource: pods\n");
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_file() {
    let error = errors(
        "lisen: 127.0.0.1:1\n\
         bookmarkInterval: 10\n\
         kinds:\n\
         - resource: pods\n  \
           pagesize: 5\n  \
           metadataOnly: maybe\n\
         - resource: Pods\n\
         - pageSize: 0\n",
    );
    let expected = [
        "c.yaml:1:1: lisen: unknown key: did you mean `listen`?",
        "c.yaml:2:19: bookmarkInterval: the number 10 cannot stand here: write a duration from 100ms to 1h, such as \
         90s, 5m or 1h30m",
        "c.yaml:5:3: kinds[0].pagesize: unknown key: did you mean `pageSize`?",
        "c.yaml:6:17: kinds[0].metadataOnly: `maybe` cannot stand here: write true or false",
        "c.yaml:7:13: `Pods` is configured at c.yaml:4:13 already: remove one of them",
        "c.yaml:8:3: kinds[2]: the entry names no kind: write resource: pods, or another name as kubectl takes it",
    ];
    assert_eq!(error, expected.join("\n"));
}

#[test]
fn what_is_not_yaml_says_where() {
    for (text, expected) in [
        (
            "kinds: [",
            "c.yaml:1:8: this is not YAML: unclosed bracket '['",
        ),
        (
            "kinds: [a]\nkinds: [b]",
            "c.yaml:2:1: kinds: stands at line 1 already: remove one of them",
        ),
        (
            "kinds: [a]\n---\nkinds: [b]",
            "c.yaml:3:1: a second document begins here: a configuration is one, so remove this line or what follows",
        ),
        (
            "kinds:\n- resource: pods\n  selectable: [.spec.containers[*].image]",
            "c.yaml:3:33: this is not YAML: while scanning an anchor or alias, did not find expected alphabetic or \
             numeric character; a path with [*] inside [ ] needs quotes, as in ['.spec.containers[*].image']",
        ),
    ] {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn wrong_values_say_what_to_write() {
    for (settings, expected) in [
        (
            "pageSize: 0",
            "kinds[0].pageSize: the number 0 cannot stand here: write a whole number from 1 to 10000",
        ),
        (
            "pageSize: 10001",
            "kinds[0].pageSize: the number 10001 cannot stand here: write a whole number from 1 to 10000",
        ),
        (
            "list: stream",
            "kinds[0].list: `stream` cannot stand here: write auto, watchlist or paged",
        ),
        (
            "start: lazy",
            "kinds[0].start: `lazy` cannot stand here: write eager or onFirstUse",
        ),
        (
            "journal: {bytes: 64MB}",
            "kinds[0].journal.bytes: `64MB` cannot stand here: write a size from 64Ki to 64Gi, such as 64Mi",
        ),
        (
            "tombstones: {age: 0s}",
            "kinds[0].tombstones.age: `0s` cannot stand here: write a duration from 1s to 168h, such as 90s, 5m or 1h30m",
        ),
        (
            "labelSelector: 'app in'",
            "kinds[0].labelSelector: the label selector is wrong at position 6: found the end, expected '('",
        ),
        (
            "selectable: ['.a..b']",
            "kinds[0].selectable[0]: the path `.a..b` is wrong at position 3: a name must follow the dot, as in \
             .spec.nodeName",
        ),
        (
            "namespaces: {include: [5]}",
            "kinds[0].namespaces.include[0]: the number 5 is not text: put it in quotes if it is meant as such",
        ),
        (
            "namespaces: {include: [My_Team]}",
            "kinds[0].namespaces.include[0]: `My_Team` is not a namespace: write lower-case letters, digits and \
             dashes, 63 at most",
        ),
        (
            "namespaces: {exclude: [a, a]}",
            "kinds[0].namespaces.exclude[1]: `a` stands here twice: remove one of them",
        ),
        (
            "namespaces: {include: []}",
            "kinds[0].namespaces.include: is empty: name at least one namespace, or remove it for all of them",
        ),
        (
            "namespaces: {}",
            "kinds[0].namespaces: says nothing: write include: [..] or exclude: [..], or remove it for all namespaces",
        ),
        (
            "selectable: ['.a', a]",
            "kinds[0].selectable[1]: `.a` stands here twice: remove one of them",
        ),
    ] {
        assert_eq!(kind_error(settings), expected, "{settings}");
    }
}

#[test]
fn impossible_combinations_are_refused() {
    for (settings, expected) in [
        (
            "namespaces: {include: [a], exclude: [b]}",
            "kinds[0].namespaces.exclude: include and exclude cannot both be said: what is not included is excluded \
             anyway, so remove one",
        ),
        (
            "list: watchlist, consistency: any",
            "kinds[0].consistency: a list of any age is not read as a stream: write list: auto or paged, or \
             consistency: mostRecent",
        ),
        (
            "metadataOnly: true, prune: {drop: [.spec]}",
            "kinds[0].prune.drop[0]: `.spec` cannot be dropped, for metadataOnly reads nothing outside .metadata: \
             remove one of the two",
        ),
        (
            "readThrough: true",
            "kinds[0].readThrough: says nothing where whole objects are cached: remove it, or add metadataOnly: true",
        ),
        (
            "metadataOnly: true, selectable: [.spec.a]",
            "kinds[0].selectable[0]: `.spec.a` cannot be selected by, for metadataOnly reads nothing outside \
             .metadata: remove one of the two",
        ),
        (
            "prune: {drop: [.spec], keep: [.spec.a]}",
            "kinds[0].prune.drop[0]: `.spec` is dropped and `.spec.a` is kept, and both cannot be: remove one of them",
        ),
        (
            "prune: {drop: [.status], keep: [.spec]}",
            "kinds[0].prune.drop[0]: `.status` is not among what `keep` keeps, so it is left out already: remove it \
             here",
        ),
        (
            "prune: {keep: []}",
            "kinds[0].prune.keep: keeps nothing: name paths, or write metadataOnly: true for identity and metadata",
        ),
        (
            "prune: {drop: [.metadata.labels]}",
            "kinds[0].prune.drop[0]: the rule `drop: .metadata.labels` would drop `.metadata.labels`, which is \
             always kept: name something beside it",
        ),
        (
            "fieldSelector: 'status.phase in (a,b)'",
            "kinds[0].fieldSelector: the API server selects by = and != only, not by sets with several values: write \
             a != b, a != c for what is unwanted, or watch all and let consumers select",
        ),
        (
            "namespaces: {include: [a]}, fieldSelector: metadata.namespace=a",
            "kinds[0].fieldSelector: metadata.namespace is said by `namespaces` already: remove it from one of the two",
        ),
    ] {
        assert_eq!(kind_error(settings), expected, "{settings}");
    }
    assert_eq!(
        errors("listen: 127.0.0.1:1\nadmin: 127.0.0.1:1\nkinds: [pods]"),
        "configuration: listen, admin: both ports are 127.0.0.1:1: write another one for one of them"
    );
}

#[test]
fn the_order_of_settings_within_a_kind_does_not_matter() {
    let error = kind_error("selectable: [.spec.a], metadataOnly: true");
    assert!(
        error.starts_with("kinds[0].selectable[0]: `.spec.a` cannot be selected by"),
        "{error}"
    );
    let error = kind_error("consistency: any, list: watchlist");
    assert!(error.contains("is not read as a stream"), "{error}");
}

#[test]
fn a_name_is_checked_for_what_people_mistake_for_one() {
    for (name, expected) in [
        ("pods/status", "write pods"),
        ("apps/v1", "write apps"),
        ("v1/pods", "write pods, or deployments.apps"),
        ("my pods", "write it as kubectl takes it"),
        ("", "write it as kubectl takes it"),
    ] {
        let error = kind::check_name(name).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    for name in ["po", "Pod", "deployments.v1.apps", "pods.v1."] {
        kind::check_name(name).unwrap();
    }
}

#[test]
fn excluded_namespaces_join_the_field_selector() {
    let kind = |settings: &str| {
        valid(&format!("kinds: [{{resource: pods, {settings}}}]"))
            .kinds
            .remove(0)
    };
    let both = kind("fieldSelector: 'spec.nodeName!=', namespaces: {exclude: [a, b]}");
    assert_eq!(
        both.upstream_field_selector(),
        "spec.nodeName!=,metadata.namespace!=a,metadata.namespace!=b"
    );
    assert!(both.is_selected());
    let excluding = kind("namespaces: {exclude: [a]}");
    assert_eq!(excluding.upstream_field_selector(), "metadata.namespace!=a");
    assert!(!excluding.is_selected());
    assert_eq!(
        kind("namespaces: {include: [a]}").upstream_field_selector(),
        ""
    );
}

#[test]
fn the_content_hash_changes_with_what_is_cached_and_with_nothing_else() {
    let hash = |settings: &str| {
        valid(&format!("kinds: [{{resource: pods{settings}}}]")).kinds[0].content_hash()
    };
    // Written down: it must not change from one build to the next.
    assert_eq!(hash(""), 16_748_766_580_981_386_495);
    assert_eq!(
        hash(""),
        hash(", pageSize: 7, list: paged, start: onFirstUse, journal: {age: 1m}")
    );
    assert_eq!(
        hash(", metadataOnly: true"),
        hash(", metadataOnly: true, readThrough: true")
    );
    let mut all: Vec<u64> = [
        "",
        ", namespaces: {include: [a]}",
        ", namespaces: {exclude: [a]}",
        ", labelSelector: a",
        ", fieldSelector: a=b",
        ", metadataOnly: true",
        ", prune: {managedFields: false}",
        ", prune: {lastApplied: false}",
        ", prune: {drop: [.a]}",
        ", prune: {keep: [.a]}",
        ", selectable: [.a]",
    ]
    .map(hash)
    .to_vec();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn two_names_of_one_kind_are_refused_with_both_lines() {
    let config = valid(
        "kinds:\n- pods\n- resource: nodes\n  namespaces: {include: [a]}\n- po\n- tokenreviews\n- later.acme.io\n",
    );
    let resolve = |name: &str| {
        let (resource, namespaced) = match name {
            "pods" | "po" => ("pods", true),
            "nodes" => ("nodes", false),
            "tokenreviews" => return Err("`tokenreviews` cannot be watched".to_owned()),
            _ => return Ok(None),
        };
        Ok(Some(KindIdentity {
            resource: resource.to_owned(),
            namespaced,
        }))
    };
    assert_eq!(
        config.check_kinds(resolve).unwrap_err().to_string(),
        "c.yaml:4:15: `nodes` do not live in namespaces: remove `namespaces`\n\
         c.yaml:5:3: `po` and `pods` at c.yaml:2:3 are the same kind, pods: remove one of them\n\
         c.yaml:6:3: `tokenreviews` cannot be watched"
    );
    assert!(valid("kinds: [pods]").check_kinds(|_| Ok(None)).is_ok());
}

#[test]
fn a_controller_that_would_miss_something_is_refused_with_the_line() {
    let error = |kinds: &str| {
        let config = valid(&format!("controllers: [node]\nkinds:\n{kinds}"));
        config.check_reads(&[NODE]).expect_err("errors").to_string()
    };
    assert_eq!(
        error("- pods"),
        "c.yaml:1:15: the controller `node` reads nodes, which are not configured: add `- resource: nodes` to kinds, \
         or remove `node`"
    );
    assert_eq!(
        error("- resource: nodes\n  metadataOnly: true"),
        "c.yaml:4:17: the controller `node` reads .spec.unschedulable of nodes, which metadataOnly leaves out: remove \
         metadataOnly, or remove `node` from controllers (c.yaml:1:15)"
    );
    let dropped = error("- resource: no\n  prune: {drop: [.status]}");
    assert_eq!(
        dropped,
        "c.yaml:4:10: the controller `node` reads .status.conditions of nodes, which prune leaves out: keep it, or \
         remove `node` from controllers (c.yaml:1:15)"
    );
    let not_kept = error("- resource: node\n  prune: {keep: [.spec]}");
    assert!(not_kept.contains("reads .status.conditions"), "{not_kept}");

    let unknown = valid("controllers: [nodes]\nkinds: [nodes]");
    assert_eq!(
        unknown.check_reads(&[NODE]).unwrap_err().to_string(),
        "c.yaml:1:15: there is no controller `nodes`: did you mean `node`?"
    );
    let fine = "controllers: [node]\nkinds: [{resource: nodes, prune: {keep: [.spec, .status.conditions]}}]";
    valid(fine).check_reads(&[NODE]).unwrap();
    // What it can do without need not be there; if it is, it has to be whole.
    let optional = Reads {
        optional: true,
        ..NODE
    };
    for kinds in ["[pods]", "[{resource: nodes, metadataOnly: true}]"] {
        let config = valid(&format!("controllers: [node]\nkinds: {kinds}"));
        config.check_reads(&[optional]).unwrap();
    }
    let dropped =
        valid("controllers: [node]\nkinds: [{resource: nodes, prune: {drop: [.status]}}]");
    assert!(dropped.check_reads(&[optional]).is_err());
    // A controller that does not run reads nothing.
    valid("kinds: [pods]").check_reads(&[NODE]).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = check(FilePath::new("no/such.yaml"), &[])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("no/such.yaml: cannot read the configuration: "),
        "{error}"
    );
}

#[test]
fn the_connection_settings_reach_the_connection() {
    let config = valid("upstream: {requestTimeout: 1s, userAgent: me}\nkinds: [pods]");
    let settings = UpstreamSettings::from(&config.upstream);
    assert_eq!(settings.request_timeout, Duration::from_secs(1));
    assert_eq!(settings.user_agent, "me");
    assert_eq!(
        errors("upstream: {userAgent: \"a\\nb\"}\nkinds: [pods]"),
        "c.yaml:1:23: upstream.userAgent: not the value of a header: write visible ASCII on one line"
    );
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in ".*") {
        let _ = parse(&text, &ServeArgs::default());
    }

    #[test]
    fn no_value_is_too_strange(
        key in proptest::sample::select([&read::TOP[..], &kind::KEYS].concat()),
        value in "[-\\[\\]{}:,.*a-z0-9\"' \n]{0,24}",
    ) {
        let _ = parse(&format!("{key}: {value}\nkinds:\n- resource: pods\n  {key}: {value}\n"), &ServeArgs::default());
    }
}

#[test]
fn a_port_that_others_reach_needs_to_know_who_they_are_and_to_be_secured() {
    let secured = "tls: {certificate: a.crt, key: a.key}\nkinds: [pods]\n";
    let open = errors("listen: 0.0.0.0:7443\nkinds: [pods]\n");
    assert!(
        open.contains(
            "auth: 0.0.0.0:7443 can be reached from other machines, and nothing says who"
        ),
        "{open}"
    );
    assert!(open.contains("informerd certs dev"), "{open}");
    let nobody_asked = errors(&format!("listen: 10.0.0.1:1\n{secured}"));
    assert!(nobody_asked.contains("auth: {tokens: {audience: informerd}}"));
    let in_the_clear = errors("listen: 10.0.0.1:1\nauth: {tokens: {}}\nkinds: [pods]\n");
    assert!(in_the_clear.contains("in plain text"), "{in_the_clear}");
    let anybody = errors(&format!(
        "listen: 10.0.0.1:1\nauth: {{tokens: {{}}, insecureLoopback: true}}\n{secured}"
    ));
    assert!(
        anybody.contains("auth.insecureLoopback: lets in"),
        "{anybody}"
    );

    for auth in ["tokens: {}", "clientCertificates: {ca: ca.crt}"] {
        let config = valid(&format!("listen: 10.0.0.1:1\nauth: {{{auth}}}\n{secured}"));
        assert!(config.auth.asks());
    }
    let tokens = valid(&format!("auth: {{tokens: {{}}}}\n{secured}"));
    assert_eq!(tokens.auth.token_audience.as_deref(), Some("informerd"));
    assert!(!valid("kinds: [pods]").auth.is_any());
}

#[test]
fn half_a_way_in_is_refused() {
    for (wrong, why) in [
        ("auth: {clientCertificates: {ca: ca.crt}}", "only over TLS"),
        ("auth: {clientCertificates: {}}", "names no authority"),
        ("auth: {tokens: {audience: ''}}", "audience is empty"),
        ("tls: {certificate: a.crt}", "and its key"),
    ] {
        let said = errors(&format!("{wrong}\nkinds: [pods]\n"));
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn the_kubernetes_port_is_no_way_around_the_door() {
    let open = errors("kubeListen: 10.0.0.1:7481\nkinds: [pods]\n");
    assert!(
        open.contains("auth: 10.0.0.1:7481 can be reached") && open.contains("tls: 10.0.0.1:7481"),
        "{open}"
    );
    let both = "kubeListen: 0.0.0.0:7481\nauth: {tokens: {}}\nkinds: [pods]\n\
                tls: {certificate: a.crt, key: a.key}\n";
    assert!(valid(both).kube_listen.is_some());
    let handed_on = errors(&format!("{both}facade: {{passthrough: reads}}\n"));
    assert!(
        handed_on.contains("facade.passthrough: hands"),
        "{handed_on}"
    );
}

#[test]
fn the_flags_say_who_is_let_in_as_the_file_does() {
    let args = ServeArgs {
        listen: Some("0.0.0.0:7443".to_owned()),
        token_audience: Some("mine".to_owned()),
        client_ca: Some("ca.crt".into()),
        tls_certificate: Some("a.crt".into()),
        tls_key: Some("a.key".into()),
        ..ServeArgs::default()
    };
    let config = parse("kinds: [pods]", &args).unwrap();
    assert_eq!(config.auth.token_audience.as_deref(), Some("mine"));
    assert_eq!(config.auth.client_ca, Some("ca.crt".into()));
    assert!(config.tls.is_some());
    let half = ServeArgs {
        tls_key: None,
        ..args.clone()
    };
    assert!(parse("kinds: [pods]", &half).is_err());
    let unset = ServeArgs {
        token_audience: Some(String::new()),
        ..args
    };
    let refused = parse("kinds: [pods]", &unset).unwrap_err().to_string();
    assert!(
        refused.contains("--token-audience: the audience is empty"),
        "{refused}"
    );
}

#[test]
fn limits_are_read_and_must_let_something_through() {
    let config = valid(
        "kinds: [pods]\nlimits: {callsOfOne: 6000, unreadOfOne: 256Mi, snapshots: 9, snapshotsOfOne: 3, \
         listedPerSecond: 2Gi, listedPerSecondOfOne: 32Mi}\n",
    );
    let limits = config.limits;
    assert_eq!((limits.snapshots, limits.snapshots_of_one), (9, 3));
    assert_eq!(limits.listed_per_second, 2 << 30);
    assert_eq!(limits.listed_per_second_of_one, 32 << 20);
    assert_eq!(config.limits.calls_of_one, 6_000);
    assert_eq!(config.limits.unread_of_one, 256 << 20);
    assert_eq!(config.limits.calls, 10_000);
    for wrong in [
        "calls: 0",
        "unread: 1Mi",
        "snapshotsOfOne: 0",
        "listedPerSecond: 1Ki",
        "callsPerSecond: many",
        "streams: 5",
    ] {
        errors(&format!("kinds: [pods]\nlimits: {{{wrong}}}\n"));
    }
}

#[test]
fn secrets_are_served_without_their_data_unless_that_is_said_twice() {
    let kind = |text: &str| valid(text).kinds[0].clone();
    for name in ["secrets", "secret", "Secret", "secrets.v1"] {
        let secrets = kind(&format!(
            "kinds:\n- resource: {name}\n  prune: {{lastApplied: false, keep: [.data, .metadata.annotations]}}\n"
        ));
        assert!(
            secrets.metadata_only && secrets.prune.last_applied,
            "{name}"
        );
        assert!(
            !format!("{:?}", secrets.prune).contains("data\"]"),
            "{name}"
        );
    }
    let twice = "sensitive: {withData: [secrets]}\nkinds: [{resource: secrets, withData: true}]\n";
    assert!(!kind(twice).metadata_only);
    for once in [
        "kinds: [{resource: secrets, withData: true}]",
        "sensitive: {withData: [secrets]}\nkinds: [secrets]",
    ] {
        assert!(errors(once).contains("said twice"), "{once}");
    }
    for sensitive in [
        "kinds: [{resource: secrets, metadataOnly: true, readThrough: true}]",
        "sensitive: {kinds: [pods]}\nkinds: [{resource: pods, metadataOnly: true, readThrough: true}]",
    ] {
        let refused = errors(sensitive);
        assert!(
            refused.contains("readThrough: hands out the data of"),
            "{refused}"
        );
    }
    let listed = "sensitive: {kinds: [configmaps]}\nkinds: [configmaps]\n";
    assert!(kind(listed).metadata_only);
    assert!(!kind("kinds: [configmaps]").metadata_only);
    assert!(!kind("kinds: [secrets.example.com]").metadata_only);
    let needless = errors("kinds: [{resource: pods, withData: true}]");
    assert!(needless.contains("not sensitive"), "{needless}");
}

#[test]
fn another_name_of_a_sensitive_kind_is_found_out_once_the_api_server_says_what_it_means() {
    let config = valid("sensitive: {kinds: [configmaps]}\nkinds: [cm, pods]\n");
    let resolve = |name: &str| {
        let resource = match name {
            "cm" | "configmaps" => "configmaps",
            other => other,
        };
        Ok(Some(KindIdentity {
            resource: resource.to_owned(),
            namespaced: true,
        }))
    };
    let error = config.check_kinds(resolve).unwrap_err().to_string();
    assert!(
        error.contains("`cm` means configmaps, which are sensitive"),
        "{error}"
    );
    let through = "sensitive: {kinds: [configmaps]}\n\
        kinds: [{resource: cm, metadataOnly: true, readThrough: true}]\n";
    let error = valid(through).check_kinds(resolve).unwrap_err().to_string();
    assert!(error.contains("`cm` means configmaps"), "{error}");
}
