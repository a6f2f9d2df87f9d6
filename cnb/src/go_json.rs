//! JSON as the reference writes it into labels, and the way between JSON and TOML.

use serde::Serialize;
use serde_json::{Number, Value};

use crate::DocumentError;

/// Writes a label: compact, and with `<`, `>`, `&` and the two line separators of Unicode escaped, because that is how
/// every label written so far looks and labels are compared as text.
pub fn write_json<T: Serialize>(value: &T) -> Result<String, DocumentError> {
    let text = serde_json::to_string(value).map_err(DocumentError::WriteJson)?;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    Ok(out)
}

/// The JSON of a TOML value. A float without a fraction becomes a whole number, a date becomes text.
pub fn json_of_toml(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => float(*number),
        toml::Value::Boolean(flag) => Value::Bool(*flag),
        toml::Value::Datetime(date) => Value::String(date.to_string()),
        toml::Value::Array(items) => Value::Array(items.iter().map(json_of_toml).collect()),
        toml::Value::Table(table) => {
            Value::Object(table.iter().map(|(key, item)| (key.clone(), json_of_toml(item))).collect())
        }
    }
}

fn float(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// The TOML of a JSON value, or nothing for `null`, which TOML does not have. Numbers become floats, as they do for a
/// buildpack whose layer metadata the reference restores.
pub fn toml_of_json(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => toml::Value::Boolean(*flag),
        Value::Number(number) => toml::Value::Float(number.as_f64()?),
        Value::String(text) => toml::Value::String(text.clone()),
        Value::Array(items) => toml::Value::Array(items.iter().filter_map(toml_of_json).collect()),
        Value::Object(map) => toml::Value::Table(
            map.iter().filter_map(|(key, item)| Some((key.clone(), toml_of_json(item)?))).collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_as_ever() {
        assert_eq!(write_json(&"a && <b>").unwrap(), "\"a \\u0026\\u0026 \\u003cb\\u003e\"");
    }

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        let table: toml::Value = toml::Value::Table("i = 42\nf = 1.5\nb = true\nl = [1]".parse().unwrap());
        let json = json_of_toml(&table);
        assert_eq!(json.to_string(), r#"{"b":true,"f":1.5,"i":42,"l":[1]}"#);
        assert_eq!(json_of_toml(&toml_of_json(&json).unwrap()), json);
    }
}
