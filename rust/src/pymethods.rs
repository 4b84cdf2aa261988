//! Python methods that templates call and `minijinja_contrib::pycompat` lacks or treats differently.
use minijinja::value::{from_args, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// `str.isspace`: Rust's white space and the four separators that only Python counts.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

pub fn unknown_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let ours = match value.kind() {
        ValueKind::String => string_method(state, value.as_str().unwrap_or(""), method, args)?,
        ValueKind::Seq => list_method(value, method, args)?,
        ValueKind::Map if method == "copy" => from_args::<()>(args).map(|()| Some(value.clone()))?,
        _ => None,
    };
    match ours {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn list_method(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "copy" => from_args::<()>(args).map(|()| Some(value.clone())),
        "index" => {
            let (what,): (Value,) = from_args(args)?;
            let position = value.try_iter()?.position(|item| item == what);
            position.map(|index| Some(Value::from(index))).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, format!("index: {what} is not in the list"))
            })
        }
        _ => Ok(None),
    }
}

fn string_method(state: &State, s: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let strip = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
            Value::from(match method {
                "strip" => s.trim_matches(strip),
                "lstrip" => s.trim_start_matches(strip),
                _ => s.trim_end_matches(strip),
            })
        }
        "split" | "rsplit" => {
            let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
            if separator == Some("") {
                return Err(Error::new(ErrorKind::InvalidOperation, format!("{method}: empty separator")));
            }
            let limit = usize::try_from(limit.unwrap_or(-1)).unwrap_or(usize::MAX);
            state.consume_fuel((s.len() / 16) as u64)?;
            split(s, separator, limit, method == "rsplit").into_iter().map(Value::from).collect()
        }
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(args)?;
            split_lines(s, keep_ends.unwrap_or(false)).into_iter().map(Value::from).collect()
        }
        "title" => from_args::<()>(args).map(|()| Value::from(title(s)))?,
        "capitalize" => from_args::<()>(args).map(|()| Value::from(capitalize(s)))?,
        "swapcase" => from_args::<()>(args).map(|()| Value::from(swap_case(s)))?,
        "casefold" => from_args::<()>(args).map(|()| Value::from(s.to_lowercase().replace('ß', "ss")))?,
        "isspace" => from_args::<()>(args).map(|()| Value::from(!s.is_empty() && s.chars().all(is_space)))?,
        "isdecimal" => from_args::<()>(args)
            .map(|()| Value::from(!s.is_empty() && s.chars().all(|c| c.is_ascii_digit())))?,
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(s.strip_prefix(prefix).unwrap_or(s))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(s.strip_suffix(suffix).unwrap_or(s))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let parts = match if method == "partition" { s.find(separator) } else { s.rfind(separator) } {
                Some(at) => [&s[..at], separator, &s[at + separator.len()..]],
                None if method == "partition" => [s, "", ""],
                None => ["", "", s],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let found = if method == "index" { s.find(what) } else { s.rfind(what) };
            let at = found.ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, format!("{method}: substring not found"))
            })?;
            Value::from(s[..at].chars().count())
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let missing = width.saturating_sub(s.chars().count());
            state.consume_fuel((missing / 16) as u64)?;
            Value::from(pad(s, method, missing, fill.unwrap_or(' ')))
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

fn split<'a>(s: &'a str, separator: Option<&str>, limit: usize, from_right: bool) -> Vec<&'a str> {
    let (mut parts, mut rest) = (Vec::new(), s);
    while parts.len() < limit {
        // Without a separator, runs of white space separate, and none is kept at the ends.
        if separator.is_none() {
            rest =
                if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
        }
        let found = match (separator, from_right) {
            (Some(text), false) => rest.find(text).map(|at| (at, at + text.len())),
            (Some(text), true) => rest.rfind(text).map(|at| (at, at + text.len())),
            (None, false) => {
                rest.char_indices().find(|(_, c)| is_space(*c)).map(|(at, c)| (at, at + c.len_utf8()))
            }
            (None, true) => {
                rest.char_indices().rfind(|(_, c)| is_space(*c)).map(|(at, c)| (at, at + c.len_utf8()))
            }
        };
        let Some((start, end)) = found else { break };
        parts.push(if from_right { &rest[end..] } else { &rest[..start] });
        rest = if from_right { &rest[..start] } else { &rest[end..] };
    }
    if separator.is_none() {
        rest = if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
    }
    if separator.is_some() || !rest.is_empty() {
        parts.push(rest);
    }
    if from_right {
        parts.reverse();
    }
    parts
}

fn split_lines(s: &str, keep_ends: bool) -> Vec<&str> {
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let (mut lines, mut rest) = (Vec::new(), s);
    while let Some(at) = rest.find(ends) {
        let width = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(&rest[..if keep_ends { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// `str.title`: a letter after anything but a letter is upper case, the others lower.
fn title(s: &str) -> String {
    let (mut out, mut in_word) = (String::with_capacity(s.len()), false);
    for c in s.chars() {
        if in_word {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        in_word = c.is_lowercase() || c.is_uppercase();
    }
    out
}

fn capitalize(s: &str) -> String {
    let mut chars = s.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &chars.as_str().to_lowercase()
}

fn swap_case(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        if c.is_uppercase() {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
    }
    out
}

fn pad(s: &str, method: &str, missing: usize, fill: char) -> String {
    let run = |count: usize, fill: char| std::iter::repeat_n(fill, count).collect::<String>();
    match method {
        "ljust" => s.to_string() + &run(missing, fill),
        "rjust" => run(missing, fill) + s,
        "center" => {
            let width = s.chars().count() + missing;
            let left = missing / 2 + (missing & width & 1);
            run(left, fill) + s + &run(missing - left, fill)
        }
        _ => {
            let digits = s.trim_start_matches(['+', '-']).len().max(s.len().saturating_sub(1));
            let (sign, rest) = s.split_at(s.len() - digits);
            sign.to_string() + &run(missing, '0') + rest
        }
    }
}
