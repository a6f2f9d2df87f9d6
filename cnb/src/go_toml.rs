//! TOML in the reference's layout: two spaces for each level, tables after plain keys, an empty line before each table of
//! the top and each element of an array of tables.

use serde::Serialize;

use crate::DocumentError;
use crate::go_toml_serializer::{Tree, TreeSerializer};

/// Writes a document in the reference's layout.
pub fn write_toml<T: Serialize>(value: &T) -> Result<String, DocumentError> {
    let tree = value.serialize(TreeSerializer).map_err(|error| DocumentError::Write(error.0))?;
    let Tree::Table(table) = tree else {
        return Err(DocumentError::Write("the top of a document must be a table".into()));
    };
    let mut out = String::new();
    write_table(&mut out, &mut Vec::new(), &table);
    Ok(out)
}

fn write_table(out: &mut String, path: &mut Vec<String>, table: &[(String, Tree)]) {
    for (key, value) in table.iter().filter(|(_, value)| !is_table(value)) {
        if matches!(value, Tree::Nothing) {
            continue;
        }
        indent(out, path.len());
        out.push_str(&quoted_key(key));
        out.push_str(" = ");
        write_value(out, value);
        out.push('\n');
    }
    for (key, value) in table.iter().filter(|(_, value)| is_table(value)) {
        path.push(quoted_key(key));
        match value {
            Tree::Table(inner) => {
                if path.len() == 1 {
                    blank_line(out);
                }
                write_header(out, path, "[", "]");
                write_table(out, path, inner);
            }
            Tree::Array(items) => {
                for item in items {
                    blank_line(out);
                    write_header(out, path, "[[", "]]");
                    if let Tree::Table(inner) = item {
                        write_table(out, path, inner);
                    }
                }
            }
            _ => {}
        }
        path.pop();
    }
}

fn is_table(value: &Tree) -> bool {
    match value {
        Tree::Table(_) => true,
        Tree::Array(items) => !items.is_empty() && items.iter().all(|item| matches!(item, Tree::Table(_))),
        _ => false,
    }
}

fn blank_line(out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
}

fn indent(out: &mut String, levels: usize) {
    for _ in 0..levels {
        out.push_str("  ");
    }
}

fn write_header(out: &mut String, path: &[String], open: &str, close: &str) {
    indent(out, path.len() - 1);
    out.push_str(open);
    out.push_str(&path.join("."));
    out.push_str(close);
    out.push('\n');
}

fn write_value(out: &mut String, value: &Tree) {
    match value {
        Tree::Nothing => {}
        Tree::Literal(text) => out.push_str(text),
        Tree::Text(text) => write_text(out, text),
        Tree::EscapedText(text) => {
            let mut plain = String::new();
            write_text(&mut plain, text);
            out.push_str(&plain.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"));
        }
        Tree::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Tree::Table(table) => {
            out.push('{');
            // Tables after plain keys, here too.
            let plain = table.iter().filter(|(_, item)| !is_table(item) && !matches!(item, Tree::Nothing));
            let tables = table.iter().filter(|(_, item)| is_table(item));
            for (index, (key, item)) in plain.chain(tables).enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                out.push_str(&quoted_key(key));
                out.push_str(" = ");
                write_value(out, item);
            }
            out.push('}');
        }
    }
}

fn quoted_key(key: &str) -> String {
    let bare = !key.is_empty()
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if bare {
        return key.to_owned();
    }
    let mut out = String::new();
    write_text(&mut out, key);
    out
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if (control as u32) < 0x20 || control == '\u{7f}' => {
                out.push_str(&format!("\\u{:04x}", control as u32));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metadata, read_toml};

    #[test]
    fn metadata_is_written_as_the_reference_writes_it() {
        let text = r#"buildpack-default-process-type = "web"

[[buildpacks]]
  id = "a/one"
  version = "1.2.3"
  api = "0.7"

[[processes]]
  type = "shell"
  command = ["echo $HOME \u0026\u0026 prog"]
  direct = false
  buildpack-id = "a/one"

[[processes]]
  type = "web"
  command = ["prog"]
  args = ["a & b", "c"]
  direct = true
  buildpack-id = "a/one"
  working-dir = "/some/dir"

[[slices]]
  paths = ["public/**"]
"#;
        let metadata: Metadata = read_toml("metadata.toml", text).unwrap();
        assert_eq!(write_toml(&metadata).unwrap(), text);
    }

    #[test]
    fn tables_within_tables_are_indented_and_read_back() {
        let table: toml::Table =
            "[metadata]\nf = 42.0\nkey = \"k\\u0001\"\nlist = [\"q\", \"r\"]\n[metadata.sub]\nb = true\n\"a b\" = -1\n[[metadata.t]]\nx = 1"
                .parse()
                .unwrap();
        let text = write_toml(&table).unwrap();
        assert_eq!(
            text,
            "[metadata]\n  f = 42.0\n  key = \"k\\u0001\"\n  list = [\"q\", \"r\"]\n  [metadata.sub]\n    \"a b\" = -1\n    b = true\n\n  [[metadata.t]]\n    x = 1\n"
        );
        assert_eq!(text.parse::<toml::Table>().unwrap(), table);
    }
}
