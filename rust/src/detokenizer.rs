//! Decoding token by token, so that the pieces joined are exactly what decoding all ids at once gives.
//!
//! A tokenizer's decoder is a chain of stages from tokens to tokens. Each stage is run here on one
//! token at a time by the library's own code, with the state that makes this exact: whether a token
//! is the first, the bytes of an unfinished character, a run of byte tokens, the characters that a
//! strip at the end may still take.
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::Decoder;

use crate::model::{AnyModel, AnyTokenizer};
use crate::tokenizer::TtpuTokenizer;
use crate::{guard, quietly, Failure, Outcome, TtpuBytes};

enum Stage {
    /// No decoder: tokens joined by spaces.
    Spaces { first: bool },
    /// Each token by itself.
    Each(DecoderWrapper),
    /// The first token is treated differently from the others.
    FirstDiffers { decoder: DecoderWrapper, first: bool },
    /// The last token is treated differently from the others.
    LastDiffers { decoder: DecoderWrapper, held: Option<String> },
    /// Byte-level: the bytes of all tokens are one text.
    ByteLevel { pending: Vec<u8> },
    /// A run of `<0xXX>` tokens is a text if all of it is UTF-8, else one U+FFFD for each.
    ByteFallback { decoder: DecoderWrapper, run: Vec<String> },
    /// Strips up to `start` and `stop` characters at the ends of the whole text.
    StripWhole { content: char, start: usize, stop: usize, leading: bool, tail: VecDeque<char> },
    /// Anything that needs all of the text first.
    Whole { decoder: DecoderWrapper, tokens: Vec<String>, fused: bool },
}

pub(crate) fn one(decoder: &DecoderWrapper, tokens: Vec<String>, index: usize) -> Outcome<String> {
    let mut decoded =
        decoder.decode_chain(tokens).map_err(|e| Failure::invalid(format!("cannot decode a token: {e}")))?;
    Ok(if index < decoded.len() { decoded.swap_remove(index) } else { String::new() })
}

/// The length of the longest prefix of `bytes` whose decoding no later byte can change.
fn settled(bytes: &[u8]) -> usize {
    let mut start = 0;
    loop {
        match std::str::from_utf8(&bytes[start..]) {
            Ok(_) => return bytes.len(),
            Err(e) => match e.error_len() {
                Some(len) => start += e.valid_up_to() + len,
                None => return start + e.valid_up_to(),
            },
        }
    }
}

pub(crate) fn is_byte_token(token: &str) -> bool {
    let Some(hex) = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')) else { return false };
    token.len() == 6 && u8::from_str_radix(hex, 16).is_ok()
}

impl Stage {
    fn push(&mut self, token: String, out: &mut Vec<String>) -> Outcome<()> {
        match self {
            Stage::Spaces { first } => {
                out.push(if std::mem::take(first) { token } else { format!(" {token}") });
            }
            Stage::Each(decoder) => out.push(one(decoder, vec![token], 0)?),
            Stage::FirstDiffers { decoder, first } => out.push(if std::mem::take(first) {
                one(decoder, vec![token], 0)?
            } else {
                one(decoder, vec![String::new(), token], 1)?
            }),
            Stage::LastDiffers { decoder, held } => {
                if let Some(previous) = held.replace(token) {
                    out.push(one(decoder, vec![previous, String::new()], 0)?);
                }
            }
            Stage::ByteLevel { pending } => {
                let mut text = String::new();
                byte_level(pending, &token, &mut text);
                out.push(text);
            }
            Stage::ByteFallback { run, .. } if is_byte_token(&token) => run.push(token),
            Stage::ByteFallback { .. } => {
                self.flush(out)?;
                out.push(token);
            }
            Stage::StripWhole { content, start, stop, leading, tail } => {
                let mut emitted = String::new();
                for c in token.chars() {
                    if *leading && *start > 0 && c == *content {
                        *start -= 1;
                        continue;
                    }
                    *leading = false;
                    tail.push_back(c);
                    if tail.len() > *stop {
                        emitted.extend(tail.pop_front());
                    }
                }
                out.push(emitted);
            }
            Stage::Whole { tokens, .. } => tokens.push(token),
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<String>) -> Outcome<()> {
        match self {
            Stage::LastDiffers { decoder, held } => {
                if let Some(last) = held.take() {
                    out.push(one(decoder, vec![last], 0)?);
                }
            }
            Stage::ByteLevel { pending } => {
                out.push(String::from_utf8_lossy(&std::mem::take(pending)).into_owned());
            }
            Stage::ByteFallback { decoder, run } if !run.is_empty() => {
                let decoded = decoder.decode_chain(std::mem::take(run));
                out.extend(decoded.map_err(|e| Failure::invalid(format!("cannot decode bytes: {e}")))?);
            }
            Stage::StripWhole { content, stop, tail, .. } => {
                while *stop > 0 && tail.back() == Some(content) {
                    *stop -= 1;
                    tail.pop_back();
                }
                out.push(std::mem::take(tail).into_iter().collect());
            }
            Stage::Whole { decoder, tokens, fused } => {
                let mut all = std::mem::take(tokens);
                if *fused {
                    all = vec![all.concat()];
                }
                let decoded = decoder.decode_chain(all);
                out.extend(decoded.map_err(|e| Failure::invalid(format!("cannot decode the text: {e}")))?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Appends to `text` what a token settles. The library's byte-level decoder gives text where unfinished
/// characters must stay bytes: so here the bytes are kept. A token with a character outside the alphabet
/// stands for itself.
fn byte_level(pending: &mut Vec<u8>, token: &str, text: &mut String) {
    let start = pending.len();
    for c in token.chars() {
        let Some(byte) = byte_of(c) else {
            pending.truncate(start);
            pending.extend_from_slice(token.as_bytes());
            break;
        };
        pending.push(byte);
    }
    let end = settled(pending);
    text.push_str(&String::from_utf8_lossy(&pending[..end]));
    pending.drain(..end);
}

/// GPT-2's alphabet: printable Latin-1 characters are themselves, the others follow from U+0100 on.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    const fn plain(b: u32) -> bool {
        matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
    }
    const OTHERS: [u8; 68] = {
        let mut others = [0; 68];
        let (mut byte, mut count) = (0, 0);
        while byte < 256 {
            if !plain(byte) {
                others[count] = byte as u8;
                count += 1;
            }
            byte += 1;
        }
        others
    };
    let code = c as u32;
    if code < 0x100 {
        return plain(code).then_some(code as u8);
    }
    OTHERS.get(code as usize - 0x100).copied()
}

fn stages(decoder: Option<&DecoderWrapper>) -> Vec<Stage> {
    let Some(decoder) = decoder else { return vec![Stage::Spaces { first: true }] };
    let mut flat = Vec::new();
    flatten(decoder, &mut flat);
    let mut fused = false;
    let mut stages = Vec::new();
    for decoder in flat {
        match &decoder {
            DecoderWrapper::Fuse(_) => fused = true,
            DecoderWrapper::ByteLevel(_) if !fused => {
                stages.push(Stage::ByteLevel { pending: Vec::new() });
                fused = true;
            }
            DecoderWrapper::Strip(strip) if fused => stages.push(Stage::StripWhole {
                content: strip.content,
                start: strip.start,
                stop: strip.stop,
                leading: true,
                tail: VecDeque::new(),
            }),
            DecoderWrapper::Replace(_) | DecoderWrapper::Strip(_) if !fused => {
                stages.push(Stage::Each(decoder));
            }
            DecoderWrapper::Metaspace(_) | DecoderWrapper::WordPiece(_) if !fused => {
                stages.push(Stage::FirstDiffers { decoder, first: true });
            }
            DecoderWrapper::BPE(_) if !fused => {
                stages.push(Stage::LastDiffers { decoder, held: None });
            }
            DecoderWrapper::ByteFallback(_) if !fused => {
                stages.push(Stage::ByteFallback { decoder, run: Vec::new() });
            }
            _ => stages.push(Stage::Whole { decoder, tokens: Vec::new(), fused }),
        }
    }
    stages
}

pub(crate) fn flatten(decoder: &DecoderWrapper, out: &mut Vec<DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            sequence.get_decoders().iter().for_each(|inner| flatten(inner, out));
        }
        other => out.push(other.clone()),
    }
}

/// One stream of ids. Not for use by several threads at once.
pub struct TtpuDetokenizer {
    tokenizer: Arc<AnyTokenizer>,
    added: Arc<[u32]>,
    skip_special_tokens: bool,
    stages: Vec<Stage>,
    text: String,
}

impl TtpuDetokenizer {
    fn new(tokenizer: &TtpuTokenizer, skip_special_tokens: bool) -> TtpuDetokenizer {
        let TtpuTokenizer { inner, added, .. } = tokenizer;
        TtpuDetokenizer {
            tokenizer: inner.clone(),
            added: added.clone(),
            skip_special_tokens,
            stages: stages(inner.get_decoder()),
            text: String::new(),
        }
    }

    fn run(&mut self, mut tokens: Vec<String>, first_stage: usize) -> Outcome<()> {
        for stage in &mut self.stages[first_stage..] {
            let mut next = Vec::with_capacity(tokens.len());
            for token in tokens {
                stage.push(token, &mut next)?;
            }
            tokens = next;
        }
        tokens.iter().for_each(|piece| self.text.push_str(piece));
        Ok(())
    }

    fn push(&mut self, id: u32) -> Outcome<()> {
        self.text.clear();
        let added = self.added.binary_search(&id).is_ok();
        let token = match self.tokenizer.get_model() {
            AnyModel::Bpe(bpe) if !added => bpe.text(id).map(Cow::Borrowed),
            _ => self.tokenizer.id_to_token(id).map(Cow::Owned),
        };
        let Some(token) = token else { return Ok(()) };
        if added && self.skip_special_tokens && self.tokenizer.get_added_vocabulary().is_special_token(&token)
        {
            return Ok(());
        }
        // The most common kind, for which a token in the middle of a text shall cost little.
        if let [Stage::ByteLevel { pending }] = &mut self.stages[..] {
            byte_level(pending, &token, &mut self.text);
            return Ok(());
        }
        let token = token.into_owned();
        self.run(vec![token], 0)
    }

    fn flush(&mut self) -> Outcome<()> {
        self.text.clear();
        for index in 0..self.stages.len() {
            let mut rest = Vec::new();
            self.stages[index].flush(&mut rest)?;
            self.run(rest, index + 1)?;
        }
        self.stages = stages(self.tokenizer.get_decoder());
        Ok(())
    }
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_detokenizer_new(
    tokenizer: *const TtpuTokenizer,
    skip_special_tokens: bool,
    out: *mut *mut TtpuDetokenizer,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let detokenizer = TtpuDetokenizer::new(&*tokenizer, skip_special_tokens);
        out.write(Box::into_raw(Box::new(detokenizer)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_detokenizer_free(detokenizer: *mut TtpuDetokenizer) {
    let _ = quietly(|| {
        if !detokenizer.is_null() {
            drop(Box::from_raw(detokenizer));
        }
    });
}

/// The new text of one more id. `text` stays valid until the next call on this detokenizer.
#[no_mangle]
pub unsafe extern "C" fn ttpu_detokenizer_push(
    detokenizer: *mut TtpuDetokenizer,
    id: u32,
    text: *mut *const u8,
    len: *mut usize,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let detokenizer = &mut *detokenizer;
        detokenizer.push(id)?;
        text.write(detokenizer.text.as_ptr());
        len.write(detokenizer.text.len());
        Ok(())
    })
}

/// The text still held back; the detokenizer then starts afresh.
#[no_mangle]
pub unsafe extern "C" fn ttpu_detokenizer_flush(
    detokenizer: *mut TtpuDetokenizer,
    text: *mut *const u8,
    len: *mut usize,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let detokenizer = &mut *detokenizer;
        detokenizer.flush()?;
        text.write(detokenizer.text.as_ptr());
        len.write(detokenizer.text.len());
        Ok(())
    })
}
