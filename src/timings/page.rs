//! The page: HTML and CSS in one file, no script, nothing fetched.

use super::{Trace, milliseconds};

/// Colours are told by class; a bar's place and length by its style.
const HEAD: &str = r#"<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 2em; }
h1 { font-size: 1.2em; }
ol { list-style: none; margin: 0; padding: 0; }
li { display: grid; grid-template-columns: 24em 6em 6em 1fr; gap: 1em; align-items: center; }
li:nth-child(odd) { background: color-mix(in srgb, currentColor 5%, transparent); }
li > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
li > span + span { text-align: right; font-variant-numeric: tabular-nums; }
li > div { position: relative; height: 1.1em; }
i { position: absolute; top: 15%; height: 70%; min-width: 1px; border-radius: 2px; background: #64748b; }
.container { background: #2563eb; } .job { background: #0d9488; } .layer, .buildpack { background: #d97706; }
.mark { width: 2px; background: #dc2626; }
</style>
"#;

pub(super) fn page(trace: &Trace) -> String {
    let title = escaped(&trace.title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<title>{title}</title>\n{HEAD}<h1>{title}: {}</h1>\n<ol>\n",
        milliseconds(trace.total)
    );
    let mut rows: Vec<(std::time::Duration, String)> = Vec::new();
    for (_, span) in trace.lanes() {
        let name = span.title();
        let kind = name.split(' ').next().unwrap_or_default();
        let bar = format!(
            "<i class=\"{kind}\" style=\"left:{:.2}%;width:{:.2}%\"></i>",
            100.0 * trace.share(span.began),
            100.0 * trace.share(span.took)
        );
        rows.push((span.began, row(&name, &[milliseconds(span.took), span.size()], &bar)));
    }
    for mark in &trace.marks {
        let bar = format!("<i class=\"mark\" style=\"left:{:.2}%\"></i>", 100.0 * trace.share(mark.at));
        let name = format!("{}: {}", mark.phase, mark.text);
        rows.push((mark.at, row(&name, &[String::new(), String::new()], &bar)));
    }
    rows.sort_by_key(|(at, _)| *at);
    rows.iter().for_each(|(_, row)| page.push_str(row));
    page.push_str("</ol>\n</html>\n");
    page
}

fn row(name: &str, [took, size]: &[String; 2], bar: &str) -> String {
    let name = escaped(name);
    format!(
        "<li><span title=\"{name}\">{name}</span><span>{took}</span><span>{size}</span><div>{bar}</div></li>\n"
    )
}

/// Names of images and layers are strangers' words.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
