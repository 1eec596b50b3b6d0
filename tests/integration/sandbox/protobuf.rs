//! How the sandbox reads protobuf, against what Go writes.

use base64::{Engine, prelude::BASE64_STANDARD};
use informerd::sandbox::{fields::drop_nulls, protobuf};
use serde_json::Value;
use tokio::process::Command;

use crate::{
    cluster::{has_go_for, wire},
    support::succeeded,
};

async fn told_by_go(args: &[&str]) -> String {
    let output = Command::new(wire().await.unwrap()).args(args).output();
    succeeded(&output.await.unwrap())
}

#[tokio::test]
async fn every_field_that_go_writes_is_read_as_in_its_json() {
    if !has_go_for("what Go writes in protobuf") {
        return;
    }
    let table = include_str!("../../../src/sandbox/types.txt");
    assert_eq!(told_by_go(&[]).await, table, "see CONTRIBUTING.md");
    let objects = told_by_go(&["-objects"]).await;
    let mut read = 0;
    for line in objects.lines() {
        let mut object: Value = serde_json::from_str(line).unwrap();
        let document = BASE64_STANDARD.decode(object["protobuf"].as_str().unwrap());
        let decoded = protobuf::decode(&document.unwrap()).unwrap();
        // Go has a null where a list is nil, of which protobuf knows nothing.
        drop_nulls(&mut object["json"]);
        assert_eq!(decoded, object["json"]);
        read += 1;
    }
    assert_eq!(
        read,
        2 * table.lines().take_while(|line| !line.is_empty()).count()
    );
}
