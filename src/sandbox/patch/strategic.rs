//! Kubernetes's strategic merge patch: maps are merged, lists by their items' keys, and directives say the rest
//! (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList/...`, `$setElementOrder/...`).

use serde_json::{Map, Value};

use super::{
    Refusal, as_map,
    lists::{Lists, Merge},
};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Merges `patch` into `target`.
pub(super) fn merge(target: &mut Value, patch: &Value, lists: &Lists) -> Result<(), Refusal> {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get(PATCH).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let rest = patch.iter().filter(|(key, _)| *key != PATCH);
            *target = Value::Object(rest.map(|(k, v)| (k.clone(), v.clone())).collect());
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            return Err(Refusal::bad_request(format!(
                "unknown patch type found: {other}"
            )));
        }
    }
    let target = as_map(target);
    if let Some(retain) = patch.get(RETAIN).and_then(Value::as_array) {
        target.retain(|key, _| retain.iter().any(|it| it == key));
    }
    for (field, value) in patch {
        if let Some(field) = field.strip_prefix(DELETE_FROM) {
            if let Some(items) = target.get_mut(field).and_then(Value::as_array_mut) {
                let gone = value.as_array().map_or(&[][..], Vec::as_slice);
                items.retain(|item| !gone.contains(item));
            }
        } else if field.starts_with('$') {
            // Orders come last, the others are done.
        } else if value.is_null() {
            target.remove(field);
        } else if let Some(items) = value.as_array() {
            let held = target.entry(field.clone()).or_insert(Value::Null);
            list(held, items, field, lists)?;
        } else if value.is_object() {
            let held = target.entry(field.clone()).or_insert(Value::Null);
            merge(held, value, lists)?;
        } else {
            target.insert(field.clone(), value.clone());
        }
    }
    for (field, order) in patch {
        if let (Some(field), Some(order)) = (field.strip_prefix(ORDER), order.as_array())
            && let Some(items) = target.get_mut(field).and_then(Value::as_array_mut)
        {
            sort(items, order, lists.merge(field));
        }
    }
    Ok(())
}

fn list(held: &mut Value, patch: &[Value], field: &str, lists: &Lists) -> Result<(), Refusal> {
    let mut items = match held.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    match lists.merge(field) {
        Merge::Replace => items = patch.to_vec(),
        Merge::Set => {
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
        }
        Merge::By(key) => {
            let replaces = |it: &&Value| {
                it.get(PATCH).is_some_and(|word| word == "replace") && it.get(key).is_none()
            };
            if patch.iter().any(|it| replaces(&it)) {
                items.clear();
            }
            for item in patch.iter().filter(|it| !replaces(it)) {
                keyed(&mut items, item, key, field, lists)?;
            }
        }
    }
    *held = Value::Array(items);
    Ok(())
}

fn keyed(
    items: &mut Vec<Value>,
    item: &Value,
    key: &str,
    field: &str,
    lists: &Lists,
) -> Result<(), Refusal> {
    let Some(id) = item.get(key) else {
        return Err(Refusal::bad_request(format!(
            "map: {item} does not contain declared merge key: {key} (in {field})"
        )));
    };
    let place = items.iter().position(|held| held.get(key) == Some(id));
    if item.get(PATCH).is_some_and(|word| word == "delete") {
        items.retain(|held| held.get(key) != Some(id));
        return Ok(());
    }
    match place {
        Some(at) => merge(&mut items[at], item, lists),
        None => {
            let mut new = Value::Null;
            merge(&mut new, item, lists)?;
            items.push(new);
            Ok(())
        }
    }
}

/// Items that the order names stand in it; the others keep their place relative to what was before them.
fn sort(items: &mut Vec<Value>, order: &[Value], merge: Merge) {
    let id = |item: &Value| match merge {
        Merge::By(key) => item.get(key).cloned(),
        Merge::Set | Merge::Replace => Some(item.clone()),
    };
    let wanted: Vec<Option<Value>> = order.iter().map(id).collect();
    let rank = |item: &Value| wanted.iter().position(|it| *it == id(item));
    let mut ordered: Vec<Value> = Vec::with_capacity(items.len());
    let mut named: Vec<Value> = items
        .iter()
        .filter(|it| rank(it).is_some())
        .cloned()
        .collect();
    named.sort_by_key(|item| rank(item));
    let mut named = named.into_iter();
    for item in items.drain(..) {
        if rank(&item).is_some() {
            ordered.extend(named.next());
        } else {
            ordered.push(item);
        }
    }
    *items = ordered;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sandbox::definition::builtin;

    fn merged(plural: &str, target: Value, patch: Value) -> Value {
        let definition = builtin().find(|it| it.identity.plural == plural).unwrap();
        let mut target = target;
        merge(&mut target, &patch, &Lists::of(&definition)).unwrap();
        target
    }

    #[test]
    fn maps_are_merged_and_nulls_take_away() {
        assert_eq!(
            merged(
                "pods",
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": null, "d": 3}})
            ),
            json!({"a": {"c": 2, "d": 3}})
        );
    }

    #[test]
    fn containers_are_merged_by_name_and_taken_away_by_directive() {
        let held = json!({"containers": [{"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}, {"name": "b"}]});
        let patch = json!({"containers": [
            {"name": "a", "image": "y", "env": [{"name": "F", "value": "2"}]},
            {"$patch": "delete", "name": "b"},
            {"name": "c", "image": "z"},
        ]});
        assert_eq!(
            merged("pods", held, patch),
            json!({"containers": [
                {"name": "a", "image": "y", "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]},
                {"name": "c", "image": "z"},
            ]})
        );
    }

    #[test]
    fn ports_are_known_by_what_the_kind_knows_them_by() {
        let held = json!({"ports": [{"port": 80, "targetPort": 1}]});
        let patch = json!({"ports": [{"port": 80, "targetPort": 2}, {"port": 81}]});
        assert_eq!(
            merged("services", held, patch),
            json!({"ports": [{"port": 80, "targetPort": 2}, {"port": 81}]})
        );
        let held = json!({"ports": [{"containerPort": 80}]});
        let patch = json!({"ports": [{"containerPort": 80, "name": "web"}]});
        assert_eq!(
            merged("pods", held, patch),
            json!({"ports": [{"containerPort": 80, "name": "web"}]})
        );
    }

    #[test]
    fn other_lists_are_replaced_and_finalizers_are_a_set() {
        let held = json!({"args": ["a"], "finalizers": ["x", "y"]});
        let patch = json!({"args": ["b"], "finalizers": ["z", "x"], "$deleteFromPrimitiveList/finalizers": ["y"]});
        assert_eq!(
            merged("pods", held, patch),
            json!({"args": ["b"], "finalizers": ["x", "z"]})
        );
    }

    #[test]
    fn retained_keys_are_all_that_stays() {
        let held = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
        let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
        assert_eq!(
            merged("deployments", held, patch),
            json!({"strategy": {"type": "Recreate"}})
        );
    }

    #[test]
    fn an_order_is_followed_and_unnamed_items_keep_their_place() {
        let held = json!({"containers": [{"name": "a"}, {"name": "x"}, {"name": "b"}]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "a", "image": "1"}],
        });
        assert_eq!(
            merged("pods", held, patch),
            json!({"containers": [{"name": "b"}, {"name": "x"}, {"name": "a", "image": "1"}]})
        );
    }

    #[test]
    fn whole_parts_are_replaced_by_directive() {
        let held = json!({"selector": {"a": "1"}, "env": [{"name": "x"}]});
        let patch = json!({"selector": {"$patch": "replace", "b": "2"}, "env": [{"$patch": "replace"}, {"name": "y"}]});
        assert_eq!(
            merged("pods", held, patch),
            json!({"selector": {"b": "2"}, "env": [{"name": "y"}]})
        );
    }

    #[test]
    fn a_list_item_without_its_key_is_refused() {
        let definition = builtin().find(|it| it.identity.plural == "pods").unwrap();
        let patch = json!({"containers": [{"image": "x"}]});
        let error = merge(&mut json!({}), &patch, &Lists::of(&definition)).unwrap_err();
        assert_eq!(error.code, 400);
        assert!(error.message.contains("merge key: name"), "{error}");
    }
}
