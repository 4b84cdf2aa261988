//! Prepares a chat template's source: line ends as Jinja reads them, the `generation` tag, and `%` on strings.
use crate::percent_format;

/// `{% generation %}` marks the assistant's own words for training masks and prints its body; its body is
/// a scope of its own, so it becomes `{% with %}`. Comments, raw blocks and strings are left alone.
pub fn prepare(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let (mut out, mut rest, mut raw) = (String::with_capacity(source.len()), source.as_str(), false);
    while let Some(at) = rest.find('{') {
        let (text, tail) = rest.split_at(at);
        out.push_str(text);
        let length = match tail.as_bytes().get(1) {
            Some(b'#') if !raw => tail.find("#}").map_or(tail.len(), |end| end + 2),
            Some(b'{') if !raw => tag_length(tail, "}}"),
            Some(b'%') => tag_length(tail, "%}"),
            _ => 1,
        };
        let (tag, after) = tail.split_at(length);
        match tag.strip_prefix("{%").and_then(|inner| inner.strip_suffix("%}")) {
            Some(inner) => push_block_tag(inner, tag, &mut raw, &mut out),
            None if tag.starts_with("{{") => out.push_str(&percent_format::rewrite(tag)),
            None => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn push_block_tag(inner: &str, tag: &str, raw: &mut bool, out: &mut String) {
    let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
    match word {
        "endraw" => *raw = false,
        _ if *raw => {}
        "raw" => *raw = true,
        "generation" => return out.push_str(&tag.replacen(word, "with", 1)),
        "endgeneration" => return out.push_str(&tag.replacen(word, "endwith", 1)),
        _ => return out.push_str(&percent_format::rewrite(tag)),
    }
    out.push_str(tag);
}

/// The length of a tag up to and with `close`, which does not count inside a string.
fn tag_length(tail: &str, close: &str) -> usize {
    let bytes = tail.as_bytes();
    let (mut at, mut quote) = (2, 0u8);
    while at < bytes.len() {
        let byte = bytes[at];
        if quote != 0 {
            if byte == b'\\' {
                at += 1;
            } else if byte == quote {
                quote = 0;
            }
        } else if bytes[at..].starts_with(close.as_bytes()) {
            return at + close.len();
        } else if byte == b'"' || byte == b'\'' {
            quote = byte;
        }
        at += 1;
    }
    tail.len()
}
