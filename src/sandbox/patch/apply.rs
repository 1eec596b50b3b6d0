//! Server-side apply for one manager: its fields are set, those that it applied before and leaves out now go.
//!
//! Fields of others stay; that they are others' is not known, so nothing conflicts.

use serde_json::Value;

use super::{
    as_map,
    lists::{Lists, Merge},
};

/// What `held` becomes where its manager applied `before` last and `wanted` now.
pub fn apply(held: &Value, before: &Value, wanted: &Value, lists: &Lists) -> Value {
    let mut new = held.clone();
    take_away(&mut new, before, wanted, lists);
    put(&mut new, wanted, lists);
    new
}

fn take_away(held: &mut Value, before: &Value, wanted: &Value, lists: &Lists) {
    let (Some(held), Some(before)) = (held.as_object_mut(), before.as_object()) else {
        return;
    };
    for (field, was) in before {
        let now = wanted.get(field);
        let Some(there) = held.get_mut(field) else {
            continue;
        };
        match (was, lists.merge(field)) {
            (Value::Object(_), _) => {
                take_away(there, was, now.unwrap_or(&Value::Null), lists);
                if now.is_none() && there.as_object().is_some_and(|it| it.is_empty()) {
                    held.remove(field);
                }
            }
            (Value::Array(was), Merge::By(key)) => {
                take_items(there, was, now, key, lists);
                let empty = there.as_array().is_some_and(Vec::is_empty);
                if now.is_none() && empty {
                    held.remove(field);
                }
            }
            (Value::Array(was), Merge::Set) => {
                if let Some(items) = there.as_array_mut() {
                    let stays = |item: &Value| {
                        !was.contains(item)
                            || now
                                .and_then(Value::as_array)
                                .is_some_and(|it| it.contains(item))
                    };
                    items.retain(stays);
                }
            }
            _ if now.is_none() => {
                held.remove(field);
            }
            _ => {}
        }
    }
}

fn take_items(there: &mut Value, was: &[Value], now: Option<&Value>, key: &str, lists: &Lists) {
    let Some(items) = there.as_array_mut() else {
        return;
    };
    let wanted = now.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for old in was {
        let same = |item: &&Value| item.get(key) == old.get(key);
        match wanted.iter().find(same) {
            None => items.retain(|item| !same(&item)),
            Some(wanted) => {
                if let Some(item) = items.iter_mut().find(|item| item.get(key) == old.get(key)) {
                    take_away(item, old, wanted, lists);
                }
            }
        }
    }
}

fn put(held: &mut Value, wanted: &Value, lists: &Lists) {
    let Some(wanted) = wanted.as_object() else {
        *held = wanted.clone();
        return;
    };
    let held = as_map(held);
    for (field, value) in wanted {
        match (value, lists.merge(field)) {
            (Value::Null, _) => {
                held.remove(field);
            }
            (Value::Object(_), _) => put(
                held.entry(field.clone()).or_insert(Value::Null),
                value,
                lists,
            ),
            (Value::Array(wanted), Merge::By(key)) => {
                let there = held.entry(field.clone()).or_insert(Value::Null);
                if !there.is_array() {
                    *there = Value::Array(Vec::new());
                }
                for item in wanted {
                    put_item(there, item, key, lists);
                }
            }
            (Value::Array(wanted), Merge::Set) => {
                let there = held
                    .entry(field.clone())
                    .or_insert(Value::Array(Vec::new()));
                for item in wanted {
                    if let Some(items) = there.as_array_mut().filter(|it| !it.contains(item)) {
                        items.push(item.clone());
                    }
                }
            }
            _ => {
                held.insert(field.clone(), value.clone());
            }
        }
    }
}

fn put_item(there: &mut Value, item: &Value, key: &str, lists: &Lists) {
    let Some(items) = there.as_array_mut() else {
        return;
    };
    let place = items.iter().position(|held| held.get(key) == item.get(key));
    match place {
        Some(at) => put(&mut items[at], item, lists),
        None => items.push(item.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::definition::builtin;

    #[test]
    fn what_was_applied_and_is_left_out_goes_and_what_others_wrote_stays() {
        let definition = builtin()
            .find(|it| it.identity.plural == "deployments")
            .unwrap();
        let lists = Lists::of(&definition);
        let before = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [
            {"name": "x", "image": "i", "args": ["1"]}, {"name": "y", "image": "j"}]}});
        let held = json!({"metadata": {"labels": {"a": "1", "b": "2", "other": "3"}, "uid": "u"}, "spec": {
            "replicas": 4,
            "containers": [
                {"name": "x", "image": "i", "args": ["1"], "imagePullPolicy": "Always"},
                {"name": "y", "image": "j"}, {"name": "z", "image": "k"}]}});
        let wanted = json!({"metadata": {"labels": {"a": "5"}}, "spec": {"containers": [
            {"name": "x", "image": "i2"}]}});
        assert_eq!(
            apply(&held, &before, &wanted, &lists),
            json!({"metadata": {"labels": {"a": "5", "other": "3"}, "uid": "u"}, "spec": {
                "replicas": 4,
                "containers": [
                    {"name": "x", "image": "i2", "imagePullPolicy": "Always"}, {"name": "z", "image": "k"}]}})
        );
    }

    #[test]
    fn applying_the_same_twice_changes_nothing() {
        let definition = builtin()
            .find(|it| it.identity.plural == "services")
            .unwrap();
        let lists = Lists::of(&definition);
        let wanted = json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}, "metadata": {"finalizers": ["f"]}});
        let once = apply(
            &json!({"spec": {"clusterIP": "1"}}),
            &Value::Null,
            &wanted,
            &lists,
        );
        assert_eq!(apply(&once, &wanted, &wanted, &lists), once);
        let none = json!({"spec": {"selector": {"a": "b"}}});
        let less = apply(&once, &wanted, &none, &lists);
        assert_eq!(
            less,
            json!({"spec": {"clusterIP": "1", "selector": {"a": "b"}}, "metadata": {"finalizers": []}})
        );
    }
}
