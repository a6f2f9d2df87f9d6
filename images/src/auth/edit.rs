//! Changes of a `config.json` or `auth.json`. What is not changed stays as somebody wrote it, byte by byte: other tools keep
//! in these files what nobody here knows.

use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::{AuthDocument, AuthError, Credentials, Secret, registry_of, server_url};

/// What holds the entries.
const AUTHS: &str = "auths";

/// The text of such a file with another entry for a registry (or a part of one, as files name it): without one where there
/// is `None`, with an empty one for [`Credentials::Anonymous`], which files have where a helper knows the credentials.
///
/// # Errors
/// When the text is no such file.
pub fn with_entry(text: &str, registry: &str, entry: Option<&Credentials>) -> Result<Secret, AuthError> {
    AuthDocument::parse(text.as_bytes())?;
    let broken = AuthError::Json { line: 1, column: 1 };
    let mut document = members(text).ok_or_else(|| broken.clone())?;
    let auths = document.iter().find(|(name, _)| name == AUTHS).map_or("{}", |(_, written)| written);
    // `null` is as good as none.
    let mut entries = if auths.starts_with('{') { members(auths).ok_or(broken)? } else { Vec::new() };
    let wanted = registry_of(registry);
    let before = entries.iter().find(|(name, _)| registry_of(name) == wanted);
    let name = before.map_or_else(|| server_url(registry), |(name, _)| name.clone());
    entries.retain(|(name, _)| registry_of(name) != wanted);
    // Strings: there is nothing that JSON cannot hold.
    let entry = entry.map(|it| Zeroizing::new(serde_json::to_string(&it.entry()).unwrap_or_default()));
    entries.extend(entry.as_ref().map(|written| (name, written.as_str())));
    let auths = object(&entries, 1);
    document.retain(|(name, _)| name != AUTHS);
    document.insert(0, (AUTHS.to_owned(), &auths));
    let mut text = object(&document, 0);
    text.push('\n');
    Ok(text)
}

/// The members of a JSON object, their values as they are written.
fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
    let mut found = Vec::new();
    while !rest.starts_with('}') {
        if !found.is_empty() {
            rest = rest.strip_prefix(',')?.trim_start();
        }
        let (name, after) = value::<String>(rest)?;
        let written = after.trim_start().strip_prefix(':')?.trim_start();
        let (IgnoredAny, after) = value(written)?;
        found.push((name, &written[..written.len() - after.len()]));
        rest = after.trim_start();
    }
    Some(found)
}

/// The value at the beginning of a text, and what comes after it.
fn value<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, &'a str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, text.get(values.byte_offset()..)?))
}

/// As Docker and Podman write it: each member in a line of its own, behind tabs.
fn object(members: &[(String, &str)], depth: usize) -> Secret {
    let tabs = |depth| "\t".repeat(depth);
    // Reserved whole: a text that outgrows its place leaves copies behind.
    let size: usize = members.iter().map(|(name, written)| 6 * name.len() + written.len() + depth + 8).sum();
    let mut text = Zeroizing::new(String::with_capacity(size + depth + 4));
    text.push('{');
    for (number, (name, written)) in members.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        // A string: there is nothing that JSON cannot hold.
        let name = serde_json::to_string(name).unwrap_or_default();
        for part in [comma, "\n", &tabs(depth + 1), &name, ": ", written] {
            text.push_str(part);
        }
    }
    if !members.is_empty() {
        text.push('\n');
        text.push_str(&tabs(depth));
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic() -> Credentials {
        Credentials::Basic { user: "u".into(), password: "p".to_owned().into() }
    }

    fn edited(text: &str, registry: &str, entry: Option<&Credentials>) -> String {
        with_entry(text, registry, entry).unwrap().to_string()
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        let before = r#"{ "HttpHeaders": {"User-Agent":"x" , "n": 1e400},"auths": {
            "r.example":{"auth":"YTpi"}, "s.example" : { "auth":"YTpi", "of nobody": [ 1,2 ] },"t.example":null },
            "big":123456789012345678901234567890, "credsStore":"", "plugins": null }"#;
        let expected = "{\n\t\"auths\": {\n\t\t\"s.example\": { \"auth\":\"YTpi\", \"of nobody\": [ 1,2 ] },\n\t\t\"t.example\": null,\n\t\t\"r.example\": {\"auth\":\"dTpw\"}\n\t},\n\t\"HttpHeaders\": {\"User-Agent\":\"x\" , \"n\": 1e400},\n\t\"big\": 123456789012345678901234567890,\n\t\"credsStore\": \"\",\n\t\"plugins\": null\n}\n";
        assert_eq!(edited(before, "r.example", Some(&basic())), expected);
        let gone = expected.replace(",\n\t\t\"r.example\": {\"auth\":\"dTpw\"}", "");
        assert_eq!(edited(before, "r.example", None), gone);
        assert_eq!(edited(expected, "r.example", None), gone, "whoever wrote it");
    }

    #[test]
    fn a_registry_has_one_entry_whatever_it_was_called() {
        let hub = r#"{"auths":{"docker.io":{"auth":"YTpi"},"https://index.docker.io/v1/":{}}}"#;
        for name in ["docker.io", "index.docker.io", "https://index.docker.io/v1/"] {
            let written = edited(hub, name, Some(&basic()));
            assert_eq!(written, "{\n\t\"auths\": {\n\t\t\"docker.io\": {\"auth\":\"dTpw\"}\n\t}\n}\n");
            assert_eq!(edited(hub, name, None), "{\n\t\"auths\": {}\n}\n");
        }
        let new = edited("{}", "docker.io", Some(&Credentials::Anonymous));
        assert_eq!(new, "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {}\n\t}\n}\n");
        let part = r#"{"auths":{"r.example/team":{"auth":"YTpi"}}}"#;
        let both = AuthDocument::parse(edited(part, "r.example", Some(&basic())).as_bytes()).unwrap().auths;
        assert_eq!(both.names().collect::<Vec<_>>(), ["r.example", "r.example/team"]);
    }

    #[test]
    fn what_is_written_is_read() {
        let odd = Credentials::Basic { user: "ü\"\\".into(), password: "p:\n".to_owned().into() };
        for text in ["{}", r#"{"auths":null}"#, r#" {"a\"\u0009":"}","auths":{}} "#] {
            let written = edited(text, "r.example:5000", Some(&odd));
            let document = AuthDocument::parse(written.as_bytes()).unwrap();
            assert_eq!(document.auths.lookup("r.example:5000/x"), odd, "{written}");
            assert_eq!(written.contains(r#""a\"\t": "}""#), text.contains("u0009"), "{written}");
        }
        for text in ["", "[]", "{", r#"{"auths":[]}"#, r#"{"auths":{}} x"#] {
            assert!(with_entry(text, "r.example", None).is_err(), "{text}");
        }
    }
}
