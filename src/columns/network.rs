//! Services, ingresses, endpoint slices.

use serde_json::Value;
use std::collections::BTreeSet;

use super::{
    Cell::{Name, Text},
    Column, Columns, NARROW, NONE, Read, Row, UNKNOWN, UNSET, WIDE, first_three,
};

pub(super) const SERVICE: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Type", NARROW, Text),
        Column("Cluster-IP", NARROW, Text),
        Column("External-IP", NARROW, Text),
        Column("Port(s)", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("Selector", WIDE, Text),
    ],
    cells: |row| {
        let service = row.json;
        let ip = service
            .text("/spec/clusterIPs/0")
            .or_else(|| service.text("/spec/clusterIP"));
        vec![
            row.name(),
            row.text_or("/spec/type", ""),
            ip.unwrap_or(NONE).into(),
            external_ip(row),
            service_ports(service),
            row.age(),
            service
                .labels("/spec/selector")
                .unwrap_or_else(|| NONE.into()),
        ]
    },
};

fn external_ip(row: &Row<'_>) -> String {
    let given = row
        .json
        .list("/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str);
    let mut ips: Vec<String> = given.map(Into::into).collect();
    let none = match row.json.text("/spec/type") {
        Some("ClusterIP" | "NodePort") => NONE,
        Some("LoadBalancer") => {
            let balancer = load_balancer(row.json);
            if !balancer.is_empty() {
                ips.insert(0, balancer);
            }
            "<pending>"
        }
        Some("ExternalName") => return row.text_or("/spec/externalName", ""),
        _ => return UNKNOWN.into(),
    };
    if ips.is_empty() {
        none.into()
    } else {
        ips.join(",")
    }
}

/// Addresses of the load balancer.
fn load_balancer(object: &Value) -> String {
    let addresses: BTreeSet<&str> = object
        .list("/status/loadBalancer/ingress")
        .iter()
        .filter_map(|it| it.text("/ip").or_else(|| it.text("/hostname")))
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

fn service_ports(service: &Value) -> String {
    let port = |it: &Value| {
        let (port, node) = (it.int("/port"), it.int("/nodePort"));
        let protocol = it.text("/protocol").unwrap_or("TCP");
        if node > 0 {
            format!("{port}:{node}/{protocol}")
        } else {
            format!("{port}/{protocol}")
        }
    };
    match service.list("/spec/ports") {
        [] => NONE.into(),
        ports => ports.iter().map(port).collect::<Vec<_>>().join(","),
    }
}

pub(super) const INGRESS: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Class", NARROW, Text),
        Column("Hosts", NARROW, Text),
        Column("Address", NARROW, Text),
        Column("Ports", NARROW, Text),
        Column("Age", NARROW, Text),
    ],
    cells: |row| {
        let ports = if row.json.list("/spec/tls").is_empty() {
            "80"
        } else {
            "80, 443"
        };
        vec![
            row.name(),
            row.text_or("/spec/ingressClassName", NONE),
            hosts(row.json),
            load_balancer(row.json),
            ports.into(),
            row.age(),
        ]
    },
};

/// The first three hosts. What is left is counted in rules, of which some may have no host.
fn hosts(ingress: &Value) -> String {
    let rules = ingress.list("/spec/rules");
    let mut hosts = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == 3;
        if let (false, Some(host)) = (more, rule.text("/host")) {
            hosts.push(host);
        }
    }
    match hosts.join(",") {
        hosts if hosts.is_empty() => "*".into(),
        hosts if more => format!("{hosts} + {} more...", rules.len() - 3),
        hosts => hosts,
    }
}

pub(super) const ENDPOINT_SLICE: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("AddressType", NARROW, Text),
        Column("Ports", NARROW, Text),
        Column("Endpoints", NARROW, Text),
        Column("Age", NARROW, Text),
    ],
    cells: |row| {
        let port = |it: &Value| match it.pointer("/name").and_then(Value::as_str) {
            _ if it.has("/port") => it.int("/port").to_string(),
            name => name.unwrap_or("*").to_owned(),
        };
        let ports: Vec<String> = row.json.list("/ports").iter().map(port).collect();
        let addresses = row
            .json
            .list("/endpoints")
            .iter()
            .flat_map(|it| it.list("/addresses"));
        let addresses: Vec<String> = addresses
            .filter_map(Value::as_str)
            .map(Into::into)
            .collect();
        vec![
            row.name(),
            row.text_or("/addressType", ""),
            first_three(&ports).unwrap_or_else(|| UNSET.into()),
            first_three(&addresses).unwrap_or_else(|| UNSET.into()),
            row.age(),
        ]
    },
};
