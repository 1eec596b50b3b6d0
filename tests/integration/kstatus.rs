//! Whether kstatus still says what the unit tests take it to say.

use std::path::Path;

use serde_json::Value;

use crate::{
    cluster::{has_go_for, kstatus},
    support::succeeded,
};

#[tokio::test]
async fn kstatus_says_what_is_kept_of_it() {
    if !has_go_for("THE COMPARISON WITH KSTATUS") {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/kstatus");
    let program = kstatus().await.unwrap();
    let mut command = tokio::process::Command::new(program);
    let output = command.arg(folder.join("corpus")).output().await.unwrap();
    let said: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let kept = std::fs::read_to_string(folder.join("answers.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(
        said, kept,
        "run tests/clients/kstatus/generate.sh and look at what changed"
    );
}
