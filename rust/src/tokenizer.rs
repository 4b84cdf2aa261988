//! `tokenizer.json` files through the `tokenizers` crate.
use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::{bytes_out, guard, ids_out, quietly, slice_in, text_in, Failure, Outcome, TtpuBytes, TtpuIds};

/// A tokenizer; all functions on it may be called from several threads at once.
pub struct TtpuTokenizer {
    pub(crate) inner: Arc<Tokenizer>,
}

fn load(json: &str) -> Outcome<TtpuTokenizer> {
    let refuse = |e: tokenizers::Error| Failure::invalid(format!("not a usable tokenizer.json: {e}"));
    let mut tokenizer: Tokenizer = json.parse().map_err(refuse)?;
    if tokenizer.get_vocab_size(true) == 0 {
        return Err(Failure::invalid("the tokenizer.json has an empty vocabulary"));
    }
    // A file may carry the truncation and padding of its last training run. transformers drops both.
    tokenizer.with_truncation(None).map_err(refuse)?;
    tokenizer.with_padding(None);
    Ok(TtpuTokenizer { inner: Arc::new(tokenizer) })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_new(
    json: *const u8,
    len: usize,
    out: *mut *mut TtpuTokenizer,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let tokenizer = load(text_in("the tokenizer.json", json, len)?)?;
        out.write(Box::into_raw(Box::new(tokenizer)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_free(tokenizer: *mut TtpuTokenizer) {
    let _ = quietly(|| {
        if !tokenizer.is_null() {
            drop(Box::from_raw(tokenizer));
        }
    });
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_encode(
    tokenizer: *const TtpuTokenizer,
    text: *const u8,
    len: usize,
    add_special_tokens: bool,
    out: *mut TtpuIds,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let text = text_in("the text", text, len)?;
        let encoding = (*tokenizer)
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|e| Failure::invalid(format!("cannot encode the text: {e}")))?;
        out.write(ids_out(encoding.get_ids().to_vec()));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_decode(
    tokenizer: *const TtpuTokenizer,
    ids: *const u32,
    len: usize,
    skip_special_tokens: bool,
    out: *mut TtpuBytes,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let text = (*tokenizer)
            .inner
            .decode(slice_in(ids, len), skip_special_tokens)
            .map_err(|e| Failure::invalid(format!("cannot decode the ids: {e}")))?;
        out.write(bytes_out(text));
        Ok(())
    })
}

/// Entries of the vocabulary, added tokens included.
#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_vocab_size(tokenizer: *const TtpuTokenizer) -> usize {
    quietly(|| (*tokenizer).inner.get_vocab_size(true)).unwrap_or(0)
}

/// The id of a token, or -1.
#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_token_to_id(
    tokenizer: *const TtpuTokenizer,
    token: *const u8,
    len: usize,
) -> i64 {
    let Ok(token) = std::str::from_utf8(slice_in(token, len)) else { return -1 };
    quietly(|| (*tokenizer).inner.token_to_id(token).map_or(-1, i64::from)).unwrap_or(-1)
}

/// Writes the token's text and returns true, or returns false when there is no such id.
#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_id_to_token(
    tokenizer: *const TtpuTokenizer,
    id: u32,
    out: *mut TtpuBytes,
) -> bool {
    let token = quietly(|| (*tokenizer).inner.id_to_token(id)).unwrap_or(None);
    let found = token.is_some();
    if let Some(token) = token {
        out.write(bytes_out(token));
    }
    found
}

/// Whether the id is a special token: one that `skip_special_tokens` leaves out.
#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_is_special(tokenizer: *const TtpuTokenizer, id: u32) -> bool {
    let inner = &(*tokenizer).inner;
    let added = inner.get_added_vocabulary();
    quietly(|| inner.id_to_token(id).is_some_and(|token| added.is_special_token(&token))).unwrap_or(false)
}
