//! Reads and writes fields of JSON objects by their path, without a typed struct for each kind.

use serde_json::{Map, Value};

/// The value at a path of keys.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// The text at a path; empty where there is none.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a path.
pub fn number(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The list at a path; empty where there is none.
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The object at a path.
pub fn map<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(value, path).and_then(Value::as_object)
}

/// What is at a path, made where it is not there; a null or scalar on the way is replaced.
pub fn entry<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(value, |value, key| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[*key]
    })
}

/// Puts a value at a path.
pub fn set(value: &mut Value, path: &[&str], to: impl Into<Value>) {
    *entry(value, path) = to.into();
}

/// Puts a value at a path where there is none, or null.
pub fn default(value: &mut Value, path: &[&str], to: impl Into<Value>) {
    let found = entry(value, path);
    if found.is_null() {
        *found = to.into();
    }
}

/// Takes away what is at a path.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents
        .iter()
        .try_fold(value, |value, key| value.get_mut(key))?;
    parent.as_object_mut()?.remove(*last)
}

/// Makes what is at a path the same as in another object, its absence included.
pub fn copy(value: &mut Value, from: &Value, path: &[&str]) {
    match at(from, path) {
        Some(there) => set(value, path, there.clone()),
        None => {
            remove(value, path);
        }
    }
}

/// Takes away every field that is null: to the API's own types that is the same as none.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_and_written_by_path() {
        let mut value = json!({"a": {"b": 1, "c": null}});
        assert_eq!(number(&value, &["a", "b"]), Some(1));
        default(&mut value, &["a", "b"], 2);
        default(&mut value, &["a", "c"], "x");
        set(&mut value, &["d", "e"], true);
        assert_eq!(value, json!({"a": {"b": 1, "c": "x"}, "d": {"e": true}}));
        assert_eq!(remove(&mut value, &["a", "b"]), Some(json!(1)));
        assert_eq!(remove(&mut value, &["no", "b"]), None);
        copy(&mut value, &json!({"d": 1}), &["d"]);
        copy(&mut value, &json!({}), &["a", "c"]);
        assert_eq!(value, json!({"a": {}, "d": 1}));
        assert_eq!(text(&value, &["a"]), "");
    }
    #[test]
    fn nulls_are_dropped_wherever_they_are() {
        let mut value = json!({"a": null, "b": [{"c": null, "d": 1}], "e": {"f": null}});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"b": [{"d": 1}], "e": {}}));
    }
}
