//! `tokenizer.json` files through the `tokenizers` crate.
use std::sync::Arc;

use serde::Deserialize;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerBuilder,
};

use crate::bpe::{Bpe, Options, Rule, Texts};
use crate::model::{AnyModel, AnyTokenizer};
use crate::{bytes_out, guard, ids_out, quietly, slice_in, text_in, Failure, Outcome, TtpuBytes, TtpuIds};

/// A tokenizer; all functions on it may be called from several threads at once.
pub struct TtpuTokenizer {
    pub(crate) inner: Arc<AnyTokenizer>,
    /// The ids of added tokens, rising.
    pub(crate) added: Arc<[u32]>,
    vocab_size: usize, // counting it again takes a look at each added token
}

impl TtpuTokenizer {
    fn new(tokenizer: AnyTokenizer) -> TtpuTokenizer {
        let vocab_size = tokenizer.get_vocab_size(true);
        let mut added: Vec<u32> =
            tokenizer.get_added_vocabulary().get_added_tokens_decoder().keys().copied().collect();
        added.sort_unstable();
        TtpuTokenizer { inner: Arc::new(tokenizer), added: added.into(), vocab_size }
    }
}

fn refuse(error: impl std::fmt::Display) -> Failure {
    Failure::invalid(format!("not a usable tokenizer.json: {error}"))
}

fn load(json: &str) -> Outcome<TtpuTokenizer> {
    let mut tokenizer: AnyTokenizer = json.parse().map_err(refuse)?;
    if tokenizer.get_vocab_size(true) == 0 {
        return Err(Failure::invalid("the tokenizer.json has an empty vocabulary"));
    }
    // A file may carry the truncation and padding of its last training run. transformers drops both.
    tokenizer.with_truncation(None).map_err(refuse)?;
    tokenizer.with_padding(None);
    Ok(TtpuTokenizer::new(tokenizer))
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

/// A tokenizer.json less the lists of its model.
#[derive(Deserialize)]
struct Frame {
    added_tokens: Vec<AddedToken>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
    model: Options,
}

fn assemble(json: &str, tokens: Texts, rule: Rule) -> Outcome<TtpuTokenizer> {
    let frame: Frame = serde_json::from_str(json).map_err(refuse)?;
    let builder = TokenizerBuilder::new()
        .with_model(AnyModel::Bpe(Bpe::new(tokens, rule, frame.model)?))
        .with_normalizer(frame.normalizer)
        .with_pre_tokenizer(frame.pre_tokenizer)
        .with_post_processor(frame.post_processor)
        .with_decoder(frame.decoder);
    let mut tokenizer: AnyTokenizer = builder.build().map_err(refuse)?;
    tokenizer.add_tokens(frame.added_tokens).map_err(refuse)?;
    Ok(TtpuTokenizer::new(tokenizer))
}

/// Texts end to end; `ends` are where each ends.
#[repr(C)]
pub struct TtpuTexts {
    pub text: *const u8,
    pub len: usize,
    pub ends: *const u32,
    pub count: usize,
}

unsafe fn texts_in(what: &str, texts: &TtpuTexts) -> Outcome<Texts> {
    Texts::new(what, slice_in(texts.text, texts.len), slice_in(texts.ends, texts.count))
}

/// How `ttpu_tokenizer_from_lists` merges: by the list of merges; by the scores of the tokens, one each; by
/// the order of the tokens.
pub const TTPU_MERGES_LISTED: i32 = 0;
pub const TTPU_MERGES_SCORED: i32 = 1;
pub const TTPU_MERGES_IN_ORDER: i32 = 2;

/// A byte-pair tokenizer from a tokenizer.json that lacks `vocab` and `merges`, and these as lists.
#[no_mangle]
pub unsafe extern "C" fn ttpu_tokenizer_from_lists(
    json: *const u8,
    len: usize,
    tokens: TtpuTexts,
    rule: i32,
    merges: TtpuTexts,
    scores: *const f32,
    out: *mut *mut TtpuTokenizer,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let rule = match rule {
            TTPU_MERGES_LISTED => Rule::Listed(texts_in("the merges", &merges)?),
            TTPU_MERGES_SCORED => Rule::Scored(slice_in(scores, tokens.count).to_vec()),
            TTPU_MERGES_IN_ORDER => Rule::InOrder,
            other => return Err(Failure::invalid(format!("no rule of merging has the number {other}"))),
        };
        let tokens = texts_in("the tokens", &tokens)?;
        let tokenizer = assemble(text_in("the tokenizer.json", json, len)?, tokens, rule)?;
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
    (*tokenizer).vocab_size
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
