//! JSON as the reference writes it into labels, and the way between JSON and TOML.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Number, Value};

use crate::DocumentError;
use crate::go_values::json_date;

/// Writes a label: compact, with `<`, `>`, `&` and the two line separators of Unicode escaped and numbers as Go's encoding/json
/// writes them, because that is how every label written so far looks and labels are compared as text.
pub fn write_json<T: Serialize>(value: &T) -> Result<String, DocumentError> {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, AsGo);
    value.serialize(&mut serializer).map_err(DocumentError::WriteJson)?;
    String::from_utf8(text).map_err(|error| DocumentError::WriteJson(serde::ser::Error::custom(error)))
}

struct AsGo;

impl Formatter for AsGo {
    /// Digits as they are from 1e-6 to 1e21, an exponent with its sign beyond.
    fn write_f64<W: ?Sized + Write>(&mut self, to: &mut W, number: f64) -> io::Result<()> {
        if number == 0.0 || (1e-6..1e21).contains(&number.abs()) {
            return write!(to, "{number}");
        }
        let text = format!("{number:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(to, "{digits}e+{exponent}"),
            _ => to.write_all(text.as_bytes()),
        }
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, to: &mut W, text: &str) -> io::Result<()> {
        let mut rest = text;
        while let Some(place) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, from) = rest.split_at(place);
            let mut letters = from.chars();
            let letter = letters.next().map_or(0, u32::from);
            write!(to, "{plain}\\u{letter:04x}")?;
            rest = letters.as_str();
        }
        to.write_all(rest.as_bytes())
    }
}

/// A free table of a document that is TOML in a file and JSON in a label, or nothing where something else is.
pub(crate) fn free_map<'de, D>(deserializer: D) -> Result<serde_json::Map<String, Value>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    match with_dates(<Value as serde::Deserialize>::deserialize(deserializer)?) {
        Value::Object(map) => Ok(map),
        _ => Ok(serde_json::Map::new()),
    }
}

/// A date of a TOML document comes as a table with one key of the TOML crate's.
fn with_dates(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(with_dates).collect()),
        Value::Object(map) => match map.get("$__toml_private_datetime") {
            Some(Value::String(date)) => {
                date.parse().map_or(Value::Null, |date| Value::String(json_date(&date)))
            }
            _ => Value::Object(map.into_iter().map(|(key, item)| (key, with_dates(item))).collect()),
        },
        other => other,
    }
}

/// The JSON of a TOML value. A float without a fraction becomes a whole number, a date becomes text, and what JSON has no number for,
/// `null` (docs/decisions/0007-images-are-the-references.md).
pub fn json_of_toml(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => float(*number),
        toml::Value::Boolean(flag) => Value::Bool(*flag),
        toml::Value::Datetime(date) => Value::String(json_date(date)),
        toml::Value::Array(items) => Value::Array(items.iter().map(json_of_toml).collect()),
        toml::Value::Table(table) => {
            Value::Object(table.iter().map(|(key, item)| (key.clone(), json_of_toml(item))).collect())
        }
    }
}

fn float(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT && (number != 0.0 || number.is_sign_positive()) {
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
        let key = std::collections::BTreeMap::from([("<\u{2028}", "\u{2029}é\n\u{7f}")]);
        assert_eq!(write_json(&key).unwrap(), "{\"\\u003c\\u2028\":\"\\u2029é\\n\u{7f}\"}");
    }

    #[test]
    fn numbers_are_read_exactly_and_written_as_go_writes_them() {
        for (text, go) in [
            ("0.1", "0.1"),
            ("2.2220000000000003e+225", "2.2220000000000003e+225"),
            ("1e-7", "1e-7"),
            ("-1.5e-9", "-1.5e-9"),
            ("0.000001", "0.000001"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e+308", "1.7976931348623157e+308"),
            ("123456789012345680000.0", "123456789012345680000"),
            ("1e21", "1e+21"),
            ("1.0", "1"),
            ("-0.0", "-0"),
            ("42", "42"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            let value: Value = crate::read_json("a label", text).unwrap();
            let written = write_json(&value).unwrap();
            assert_eq!(written, go, "{text}");
            let again: Value = crate::read_json("a label", &written).unwrap();
            assert_eq!(write_json(&again).unwrap(), go, "{text}");
            assert_eq!(again.as_f64().map(f64::to_bits), value.as_f64().map(f64::to_bits), "{text}");
        }
    }

    #[test]
    fn what_json_has_no_number_for_is_null() {
        for number in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(json_of_toml(&toml::Value::Float(number)), Value::Null);
        }
    }

    #[test]
    fn numbers_survive_the_way_there_and_back() {
        let table: toml::Value = toml::Value::Table("i = 42\nf = 1.5\nb = true\nl = [1]".parse().unwrap());
        let json = json_of_toml(&table);
        assert_eq!(json.to_string(), r#"{"b":true,"f":1.5,"i":42,"l":[1]}"#);
        assert_eq!(json_of_toml(&toml_of_json(&json).unwrap()), json);
        let less_than_nothing = json_of_toml(&toml::Value::Float(-0.0));
        assert_eq!(write_json(&less_than_nothing).unwrap(), "-0");
    }
}
