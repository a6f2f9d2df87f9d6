//! Values in the forms in which the reference writes them (Go's `time.RFC3339Nano`, `strconv.FormatFloat` and `fmt.Sprint`).

use std::collections::BTreeMap;

use toml::Value;
use toml::value::{Date, Datetime, Offset, Time};

/// A float in TOML: the fewest digits, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn toml_float(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string().to_lowercase();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) && number != 0.0 {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let plain = number.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

/// A date in TOML: of what kind it was, it stays.
pub(crate) fn toml_date(date: &Datetime) -> String {
    let text = match (&date.date, &date.time) {
        (Some(day), Some(time)) => format!("{}T{}", day_text(day), time_text(time)),
        (Some(day), None) => day_text(day),
        (None, Some(time)) => time_text(time),
        (None, None) => String::new(),
    };
    text + &date.offset.map(offset_text).unwrap_or_default()
}

/// A date in JSON, which has but one kind: what a date leaves open is midnight, the year nought, and UTC.
pub(crate) fn json_date(date: &Datetime) -> String {
    let day = date.date.as_ref().map_or_else(|| "0000-01-01".to_owned(), day_text);
    let time = date.time.as_ref().map_or_else(|| "00:00:00".to_owned(), time_text);
    format!("{day}T{time}{}", date.offset.map_or_else(|| "Z".to_owned(), offset_text))
}

/// Any value as text, where text was expected (Go's `fmt.Sprint`).
pub(crate) fn go_text(value: &Value) -> String {
    let joined = |texts: Vec<String>| texts.join(" ");
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => text_of_float(*number),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(date) => text_of_date(date),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_text).collect())),
        Value::Table(table) => {
            let members: BTreeMap<_, _> = table.iter().collect();
            let members = members.into_iter().map(|(key, item)| format!("{key}:{}", go_text(item)));
            format!("map[{}]", joined(members.collect()))
        }
    }
}

/// As in TOML, but that a whole number has no fraction.
fn text_of_float(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        number if number.is_nan() => "NaN".to_owned(),
        number => toml_float(number).trim_end_matches(".0").to_owned(),
    }
}

/// What a date leaves open is the first day of the year nought, or midnight; its zone has the name of the kind of date.
fn text_of_date(date: &Datetime) -> String {
    let day = date.date.as_ref().map_or_else(|| "0000-01-01".to_owned(), day_text);
    let time = date.time.as_ref().map_or_else(|| "00:00:00".to_owned(), time_text);
    let zone = match (date.offset, &date.date, &date.time) {
        (Some(offset), ..) => match offset_text(offset).replace(':', "") {
            utc if utc == "Z" => "+0000 UTC".to_owned(),
            offset => format!("{offset} {offset}"),
        },
        (None, Some(_), Some(_)) => "+0000 datetime-local".to_owned(),
        (None, Some(_), None) => "+0000 date-local".to_owned(),
        (None, None, _) => "+0000 time-local".to_owned(),
    };
    format!("{day} {time} {zone}")
}

fn day_text(day: &Date) -> String {
    format!("{:04}-{:02}-{:02}", day.year, day.month, day.day)
}

fn time_text(time: &Time) -> String {
    let seconds = format!("{:02}:{:02}:{:02}", time.hour, time.minute, time.second.unwrap_or_default());
    match time.nanosecond.unwrap_or_default() {
        0 => seconds,
        nanoseconds => format!("{seconds}.{}", format!("{nanoseconds:09}").trim_end_matches('0')),
    }
}

fn offset_text(offset: Offset) -> String {
    match offset {
        Offset::Z | Offset::Custom { minutes: 0 } => "Z".to_owned(),
        Offset::Custom { minutes } => {
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (text, go) in [
            ("1.0", "1.0"),
            ("100000.0", "100000.0"),
            ("1e6", "1e+06"),
            ("123456789.0", "1.23456789e+08"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("6.626e-34", "6.626e-34"),
            ("1.5e300", "1.5e+300"),
            ("5e-324", "5e-324"),
            ("-0.0", "-0.0"),
            ("0.0", "0.0"),
            ("-inf", "-inf"),
            ("nan", "nan"),
        ] {
            assert_eq!(toml_float(text.parse().unwrap()), go, "{text}");
        }
    }

    #[test]
    fn dates_are_written_as_go_writes_them() {
        for (text, toml, json) in [
            ("1979-05-27T07:32:00Z", "1979-05-27T07:32:00Z", "1979-05-27T07:32:00Z"),
            ("1979-05-27 07:32:00.500+00:00", "1979-05-27T07:32:00.5Z", "1979-05-27T07:32:00.5Z"),
            ("1979-05-27T00:32:00.000-07:30", "1979-05-27T00:32:00-07:30", "1979-05-27T00:32:00-07:30"),
            ("1979-05-27T07:32:00", "1979-05-27T07:32:00", "1979-05-27T07:32:00Z"),
            ("1979-05-27", "1979-05-27", "1979-05-27T00:00:00Z"),
            ("07:32:00.25", "07:32:00.25", "0000-01-01T07:32:00.25Z"),
        ] {
            let date = text.parse().unwrap();
            assert_eq!((toml_date(&date).as_str(), json_date(&date).as_str()), (toml, json));
        }
    }

    #[test]
    fn values_become_text_as_with_go() {
        for (value, go) in [
            ("\"a b\"", "a b"),
            ("0x1F", "31"),
            ("1.0", "1"),
            ("0.1", "0.1"),
            ("100000.0", "100000"),
            ("1e6", "1e+06"),
            ("1e-5", "1e-05"),
            ("-0.0", "-0"),
            ("inf", "+Inf"),
            ("-inf", "-Inf"),
            ("nan", "NaN"),
            ("true", "true"),
            ("1979-05-27T07:32:00Z", "1979-05-27 07:32:00 +0000 UTC"),
            ("1979-05-27T00:32:00.5-07:00", "1979-05-27 00:32:00.5 -0700 -0700"),
            ("1979-05-27T07:32:00", "1979-05-27 07:32:00 +0000 datetime-local"),
            ("1979-05-27", "1979-05-27 00:00:00 +0000 date-local"),
            ("07:32:00.25", "0000-01-01 07:32:00.25 +0000 time-local"),
            ("[[1], [{ z = 1 }]]", "[[1] [map[z:1]]]"),
            ("{ b = 1, a = [\"x\", true] }", "map[a:[x true] b:1]"),
        ] {
            let table: toml::Table = format!("value = {value}").parse().unwrap();
            assert_eq!(go_text(&table["value"]), go, "{value}");
        }
    }
}
