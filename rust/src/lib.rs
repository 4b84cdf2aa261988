//! The C interface behind `ttpu/text`: tokenizers, incremental detokenizers, chat templates and
//! grammars.
//!
//! Every entry point catches panics and returns a status; a message is left in `error`. Buffers that
//! are handed out belong to the caller and are freed by `ttpu_text_bytes_free` / `ttpu_text_ids_free`.
//! Pointers must be valid for their lengths; a null pointer is allowed where the length is zero.

mod bpe;
mod detokenizer;
mod grammar;
mod model;
mod percent_format;
mod pymethods;
mod pyvalue;
mod template;
mod template_source;
mod tokenizer;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

pub const TTPU_TEXT_OK: i32 = 0;
pub const TTPU_TEXT_INVALID_ARGUMENT: i32 = 3;
pub const TTPU_TEXT_RESOURCE_EXHAUSTED: i32 = 8;
pub const TTPU_TEXT_INTERNAL: i32 = 13;

/// Bytes owned by the caller; free with `ttpu_text_bytes_free`.
#[repr(C)]
pub struct TtpuBytes {
    pub data: *mut u8,
    pub len: usize,
    pub capacity: usize,
}

/// Token ids owned by the caller; free with `ttpu_text_ids_free`.
#[repr(C)]
pub struct TtpuIds {
    pub data: *mut u32,
    pub len: usize,
    pub capacity: usize,
}

#[derive(Debug)]
pub struct Failure {
    status: i32,
    message: String,
}

impl Failure {
    fn new(status: i32, message: impl Into<String>) -> Failure {
        Failure { status, message: message.into() }
    }
    fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(TTPU_TEXT_INVALID_ARGUMENT, message)
    }
}

type Outcome<T> = Result<T, Failure>;

/// Runs `body` and catches its panic. Nothing is printed: the message goes back with the status.
fn quietly<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast::<&str>().map_or_else(|_| "panic".into(), |text| text.to_string()),
    })
}

/// Runs `body`; a failure or a panic becomes a status and a message.
fn guard(error: *mut TtpuBytes, body: impl FnOnce() -> Outcome<()>) -> i32 {
    let failure = match quietly(body) {
        Ok(Ok(())) => return TTPU_TEXT_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::new(TTPU_TEXT_INTERNAL, format!("internal error: {panic}")),
    };
    if !error.is_null() {
        // SAFETY: the caller passes a writable TtpuBytes or null.
        unsafe { error.write(bytes_out(failure.message)) };
    }
    failure.status
}

/// Runs `body` on a stack large enough for the deepest syntax tree of a permitted source and for values
/// nested one level deeper each step. Pages are only used once they are touched.
fn on_large_stack<T: Send>(steps: u64, body: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    let bytes = (512 << 20) + 256 * steps as usize;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, body);
        let thread = thread
            .map_err(|e| Failure::new(TTPU_TEXT_RESOURCE_EXHAUSTED, format!("cannot start a thread: {e}")))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn bytes_out(text: String) -> TtpuBytes {
    let mut bytes = std::mem::ManuallyDrop::new(text.into_bytes());
    TtpuBytes { data: bytes.as_mut_ptr(), len: bytes.len(), capacity: bytes.capacity() }
}

fn ids_out(ids: Vec<u32>) -> TtpuIds {
    let mut ids = std::mem::ManuallyDrop::new(ids);
    TtpuIds { data: ids.as_mut_ptr(), len: ids.len(), capacity: ids.capacity() }
}

/// SAFETY: `data` is valid for `len` elements, or null when `len` is zero.
unsafe fn slice_in<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    std::slice::from_raw_parts(data, len)
}

/// SAFETY: as `slice_in`.
unsafe fn text_in<'a>(what: &str, data: *const u8, len: usize) -> Outcome<&'a str> {
    std::str::from_utf8(slice_in(data, len)).map_err(|e| {
        Failure::invalid(format!("{what} is not valid UTF-8: bad byte at offset {}", e.valid_up_to()))
    })
}

/// # Safety
/// `bytes` came from this library and was not freed.
#[no_mangle]
pub unsafe extern "C" fn ttpu_text_bytes_free(bytes: TtpuBytes) {
    let _ = quietly(|| {
        if !bytes.data.is_null() {
            drop(Vec::from_raw_parts(bytes.data, bytes.len, bytes.capacity));
        }
    });
}

/// # Safety
/// `ids` came from this library and was not freed.
#[no_mangle]
pub unsafe extern "C" fn ttpu_text_ids_free(ids: TtpuIds) {
    let _ = quietly(|| {
        if !ids.data.is_null() {
            drop(Vec::from_raw_parts(ids.data, ids.len, ids.capacity));
        }
    });
}
