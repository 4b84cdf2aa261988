//! Chat templates: minijinja set up to render as transformers renders with Jinja.
use std::ffi::c_void;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use crate::percent_format::percent_format;
use crate::pyvalue::{from_json, str_of, JsonStyle};
use crate::template_source::prepare;
use crate::{
    bytes_out, guard, on_large_stack, pymethods, quietly, text_in, Failure, Outcome, TtpuBytes,
    TTPU_TEXT_RESOURCE_EXHAUSTED,
};

/// Formats the current time as `strftime` does: writes at most `capacity` bytes and returns the length.
pub type TtpuStrftime = extern "C" fn(
    context: *const c_void,
    format: *const u8,
    format_len: usize,
    out: *mut u8,
    capacity: usize,
) -> usize;

/// What one rendering may use.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TtpuRenderLimits {
    /// Steps of the template engine.
    pub steps: u64,
    pub output_bytes: usize,
}

/// A compiled template; may be rendered by several threads at once.
pub struct TtpuTemplate {
    environment: Environment<'static>,
}

const NAME: &str = "chat_template";
/// Published templates have up to some 20 kB. An expression this long still fits the stack.
const MAX_SOURCE_BYTES: usize = 512 << 10;
const MAX_STEPS: u64 = 16_000_000;

/// The message that a template gave to `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = str_of(message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// An argument given by its name or its place; undefined when it is not given.
fn argument(args: &[Value], kwargs: &Kwargs, index: usize, name: &str) -> Result<Value, Error> {
    Ok(kwargs.get::<Option<Value>>(name)?.or_else(|| args.get(index).cloned()).unwrap_or_default())
}

/// transformers' own filter: `json.dumps`, and no escaping of HTML.
fn tojson(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let argument = |index: usize, name: &str| argument(&args, &kwargs, index, name);
    let indent = argument(1, "indent")?;
    let indent = match indent.kind() {
        ValueKind::String => Some(str_of(&indent)),
        ValueKind::Number => Some(" ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize)),
        _ => None,
    };
    let separators = argument(2, "separators")?;
    let (item_separator, key_separator) = if separators.kind() == ValueKind::Seq {
        let part = |index: usize| separators.get_item(&Value::from(index)).map(|text| str_of(&text));
        (part(0)?, part(1)?)
    } else {
        (if indent.is_some() { "," } else { ", " }.into(), ": ".into())
    };
    let style = JsonStyle {
        ensure_ascii: argument(0, "ensure_ascii")?.is_true(),
        indent,
        item_separator,
        key_separator,
        sort_keys: argument(3, "sort_keys")?.is_true(),
    };
    kwargs.assert_all_used()?;
    style.dumps(value).map(Value::from)
}

/// Jinja's `int` and `float` filters fall back instead of failing.
fn int_filter(value: &Value, default: Option<Value>, base: Option<u32>) -> Value {
    let parsed = match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or("").trim_matches(pymethods::is_space).replace('_', "");
            let base = base.unwrap_or(10).clamp(2, 36);
            i128::from_str_radix(&text, base).ok().or_else(|| text.parse::<f64>().ok().map(|f| f as i128))
        }
        ValueKind::Bool => Some(value.is_true() as i128),
        ValueKind::Number if value.is_integer() => return value.clone(),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(|f| f as i128),
        _ => None,
    };
    match parsed {
        Some(number) => i64::try_from(number).map_or_else(|_| Value::from(number), Value::from),
        None => default.unwrap_or_else(|| Value::from(0)),
    }
}

fn float_filter(value: &Value, default: Option<Value>) -> Value {
    let parsed = match value.kind() {
        ValueKind::String => {
            value.as_str().and_then(|text| text.trim_matches(pymethods::is_space).parse().ok())
        }
        ValueKind::Bool => Some(value.is_true() as u8 as f64),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    };
    parsed.map(Value::from).unwrap_or_else(|| default.unwrap_or_else(|| Value::from(0.0)))
}

/// Jinja's `truncate`: text up to `leeway` characters longer than `length` is left whole.
fn truncate(text: &str, args: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let number = |index: usize, name: &str, default: usize| -> Result<usize, Error> {
        let value = argument(&args, &kwargs, index, name)?;
        if value.is_undefined() {
            Ok(default)
        } else {
            usize::try_from(value)
        }
    };
    let (length, leeway) = (number(0, "length", 255)?, number(3, "leeway", 5)?);
    let kill_words = argument(&args, &kwargs, 1, "killwords")?.is_true();
    let end = argument(&args, &kwargs, 2, "end")?;
    let end = if end.is_undefined() { "...".to_string() } else { str_of(&end) };
    kwargs.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.into());
    }
    let kept = length.saturating_sub(end.chars().count());
    let cut: String = text.chars().take(kept).collect();
    let whole_words = cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words);
    Ok(if kill_words { cut } else { whole_words.to_string() } + &end)
}

/// A character of `\w`.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
}

fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_unknown_method_callback(pymethods::unknown_method);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_formatter(|out, _, value| fmt::Write::write_str(out, &str_of(value)).map_err(Error::from));
    env.set_debug(true);
    env.add_filter("percent_format", percent_format);
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| str_of(value));
    env.add_filter("int", int_filter);
    env.add_filter("float", float_filter);
    env.add_filter("wordcount", |text: &str| text.split(|c| !is_word(c)).filter(|w| !w.is_empty()).count());
    env.add_filter("truncate", truncate);
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    env.add_test("sequence", is_sequence);
    env.add_test("iterable", is_iterable);
    env.add_function("raise_exception", raise_exception);
    Ok(env)
}

fn failure(error: &Error, limits: TtpuRenderLimits) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(raised) = inner.downcast_ref::<Raised>() {
            return Failure::invalid(format!("the template refused the conversation: {raised}"));
        }
        source = inner.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        let message = format!("the template ran for more than {} steps", limits.steps);
        return Failure::new(TTPU_TEXT_RESOURCE_EXHAUSTED, message);
    }
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
    let what = if error.kind() == ErrorKind::SyntaxError { "does not parse" } else { "failed" };
    Failure::invalid(format!("the template {what}: {line}{}{detail}", error.kind()))
}

struct Bounded {
    text: Vec<u8>,
    limit: usize,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.text.len() + piece.len() > self.limit {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The caller's clock. SAFETY: the caller keeps it alive and callable for the whole rendering.
#[derive(Clone, Copy)]
struct Clock(TtpuStrftime, *const c_void);
unsafe impl Send for Clock {}
unsafe impl Sync for Clock {}

impl Clock {
    fn format(&self, format: &str) -> Result<String, Error> {
        let mut out = vec![0u8; 4096];
        let len = (self.0)(self.1, format.as_ptr(), format.len(), out.as_mut_ptr(), out.len());
        out.truncate(len);
        String::from_utf8(out)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "strftime_now gave invalid UTF-8"))
    }
}

impl TtpuTemplate {
    fn new(source: &str) -> Outcome<TtpuTemplate> {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!("the template has {} bytes, more than {MAX_SOURCE_BYTES}", source.len());
            return Err(Failure::new(TTPU_TEXT_RESOURCE_EXHAUSTED, message));
        }
        let compile = || {
            let mut environment = environment()?;
            environment.add_template_owned(NAME, prepare(source))?;
            Ok(TtpuTemplate { environment })
        };
        let no_limits = TtpuRenderLimits { steps: 0, output_bytes: 0 };
        on_large_stack(0, || compile().map_err(|error| failure(&error, no_limits)))
    }

    fn render(&self, context: &str, clock: Clock, limits: TtpuRenderLimits) -> Outcome<String> {
        let limits = TtpuRenderLimits { steps: limits.steps.min(MAX_STEPS), ..limits };
        on_large_stack(limits.steps, || self.render_here(context, clock, limits))
    }

    fn render_here(&self, context: &str, clock: Clock, limits: TtpuRenderLimits) -> Outcome<String> {
        let context: serde_json::Value = serde_json::from_str(context)
            .map_err(|e| Failure::invalid(format!("the context is not JSON: {e}")))?;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(limits.steps));
        environment.add_function("strftime_now", move |format: &str| clock.format(format));
        let mut out = Bounded { text: Vec::new(), limit: limits.output_bytes, full: false };
        let result = environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(from_json(context), &mut out).map(|_| ()));
        if out.full {
            let message = format!("the template wrote more than {} bytes", limits.output_bytes);
            return Err(Failure::new(TTPU_TEXT_RESOURCE_EXHAUSTED, message));
        }
        result.map_err(|error| failure(&error, limits))?;
        String::from_utf8(out.text).map_err(|e| Failure::invalid(e.to_string()))
    }
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_template_new(
    source: *const u8,
    len: usize,
    out: *mut *mut TtpuTemplate,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let template = TtpuTemplate::new(text_in("the template", source, len)?)?;
        out.write(Box::into_raw(Box::new(template)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_template_free(template: *mut TtpuTemplate) {
    let _ = quietly(|| {
        if !template.is_null() {
            drop(Box::from_raw(template));
        }
    });
}

/// `context` is a JSON object: the template's variables.
#[no_mangle]
pub unsafe extern "C" fn ttpu_template_render(
    template: *const TtpuTemplate,
    context: *const u8,
    len: usize,
    strftime: TtpuStrftime,
    strftime_context: *const c_void,
    limits: TtpuRenderLimits,
    out: *mut TtpuBytes,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let context = text_in("the context", context, len)?;
        let text = (*template).render(context, Clock(strftime, strftime_context), limits)?;
        out.write(bytes_out(text));
        Ok(())
    })
}
