//! Python's `'%d of %s' % (a, b)`: minijinja has no hook for operators on strings, so that a string literal
//! with `%` behind it becomes a filter of the same precedence, `'%d of %s'|percent_format((a, b))`.
use minijinja::formatting::{format, FormatStyle};
use minijinja::value::{Tuple, Value};
use minijinja::Error;

/// The filter that stands for the operator.
pub fn percent_format(text: &str, operand: &Value) -> Result<String, Error> {
    match operand.downcast_object_ref::<Tuple>() {
        Some(_) => format(FormatStyle::Printf, text, &operand.try_iter()?.collect::<Vec<_>>()),
        None => format(FormatStyle::Printf, text, std::slice::from_ref(operand)),
    }
}

/// Rewrites one tag, given with its delimiters.
pub fn rewrite(tag: &str) -> String {
    let bytes = tag.as_bytes();
    let (mut out, mut copied, mut at) = (String::with_capacity(tag.len()), 0, 0);
    while at < bytes.len() {
        if !is_quote(bytes[at]) {
            at += 1;
            continue;
        }
        at = end_of_string(bytes, at);
        let sign = skip_spaces(bytes, at);
        if bytes.get(sign) != Some(&b'%') || bytes.get(sign + 1) == Some(&b'}') {
            continue;
        }
        let start = skip_spaces(bytes, sign + 1);
        let end = end_of_operand(bytes, start);
        out.push_str(&tag[copied..at]);
        out.push_str("|percent_format(");
        out.push_str(&rewrite(&tag[start..end]));
        out.push(')');
        (copied, at) = (end, end);
    }
    out.push_str(&tag[copied..]);
    out
}

fn is_quote(byte: u8) -> bool {
    byte == b'"' || byte == b'\''
}

fn skip_spaces(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

fn skip_word(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')) {
        at += 1;
    }
    at
}

/// Behind the string that starts at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != bytes[at] {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

/// Behind the bracket that closes the one at `at`.
fn end_of_brackets(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            quote if is_quote(quote) => {
                at = end_of_string(bytes, at);
                continue;
            }
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Behind an operand with its attributes, indices, calls and filters.
fn end_of_operand(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while matches!(bytes.get(at), Some(b'-' | b'+')) {
        at += 1;
    }
    at = match bytes.get(at) {
        Some(b'(' | b'[' | b'{') => end_of_brackets(bytes, at),
        Some(byte) if is_quote(*byte) => end_of_string(bytes, at),
        _ => skip_word(bytes, at),
    };
    loop {
        match bytes.get(at) {
            Some(b'(' | b'[') => at = end_of_brackets(bytes, at),
            Some(b'.') => at = skip_word(bytes, at),
            _ => {
                let bar = skip_spaces(bytes, at);
                if bytes.get(bar) != Some(&b'|') {
                    return at;
                }
                at = skip_word(bytes, skip_spaces(bytes, bar + 1));
            }
        }
    }
}
