//! The C interface behind `ttpu/text`: tokenizers, incremental detokenizers and chat templates.
//!
//! Every entry point catches panics and returns a status; a message is left in `error`. Buffers that
//! are handed out belong to the caller and are freed by `ttpu_text_bytes_free` / `ttpu_text_ids_free`.
//! Pointers must be valid for their lengths; a null pointer is allowed where the length is zero.

mod detokenizer;
mod pymethods;
mod pyvalue;
mod template;
mod template_source;
mod tokenizer;

use std::cell::RefCell;
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

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `body`; a failure or a panic becomes a status and a message. Nothing is printed.
fn guard(error: *mut TtpuBytes, body: impl FnOnce() -> Outcome<()>) -> i32 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
    });
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return TTPU_TEXT_OK,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::new(TTPU_TEXT_INTERNAL, format!("internal error: {}", PANIC.take())),
    };
    if !error.is_null() {
        // SAFETY: the caller passes a writable TtpuBytes or null.
        unsafe { error.write(bytes_out(failure.message)) };
    }
    failure.status
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

/// SAFETY: `bytes` came from this library and was not freed.
#[no_mangle]
pub unsafe extern "C" fn ttpu_text_bytes_free(bytes: TtpuBytes) {
    if !bytes.data.is_null() {
        drop(Vec::from_raw_parts(bytes.data, bytes.len, bytes.capacity));
    }
}

/// SAFETY: `ids` came from this library and was not freed.
#[no_mangle]
pub unsafe extern "C" fn ttpu_text_ids_free(ids: TtpuIds) {
    if !ids.data.is_null() {
        drop(Vec::from_raw_parts(ids.data, ids.len, ids.capacity));
    }
}
