//! What may come next by a grammar, as a mask over the vocabulary: `llguidance` over our own tokenizers.
use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::{Matcher, ParserFactory};
use serde_json::{json, Value};
use tokenizers::decoders::DecoderWrapper;
use toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenizerEnv, INVALID_TOKEN};

use crate::detokenizer::{byte_of, flatten, is_byte_token, one};
use crate::model::AnyTokenizer;
use crate::tokenizer::TtpuTokenizer;
use crate::{
    guard, ids_out, on_large_stack, quietly, slice_in, text_in, Failure, Outcome, TtpuBytes, TtpuIds,
};

/// The kinds of text that a grammar is compiled from. Choices are a JSON list of texts.
pub const TTPU_GRAMMAR_JSON_SCHEMA: i32 = 0;
pub const TTPU_GRAMMAR_REGEX: i32 = 1;
pub const TTPU_GRAMMAR_CHOICES: i32 = 2;
pub const TTPU_GRAMMAR_LARK: i32 = 3;

/// Compiling takes no text larger than this, and none whose brackets nest deeper than that.
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_NESTING: usize = 256;
/// Tokens longer than the trie holds are never allowed.
const MAX_TOKEN_BYTES: usize = 1000;
/// Between the parts of a JSON text; without a limit a model may go on with spaces for ever.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,64}";

/// Of a tokenizer whose tokens are pieces of text: how they become bytes.
enum Spelling {
    ByteLevel,
    Stages(Vec<DecoderWrapper>),
}

impl Spelling {
    fn of(tokenizer: &AnyTokenizer) -> Outcome<Spelling> {
        let mut decoders = Vec::new();
        if let Some(decoder) = tokenizer.get_decoder() {
            flatten(decoder, &mut decoders);
        }
        if decoders.is_empty() {
            return Err(Failure::invalid(
                "grammars need a tokenizer whose tokens are pieces of text; this one joins words by spaces",
            ));
        }
        let mut stages = Vec::new();
        for decoder in decoders {
            match decoder {
                DecoderWrapper::ByteLevel(_) if stages.is_empty() => return Ok(Spelling::ByteLevel),
                DecoderWrapper::Fuse(_) => break, // what follows concerns the text's two ends
                DecoderWrapper::Replace(_)
                | DecoderWrapper::Metaspace(_)
                | DecoderWrapper::ByteFallback(_) => stages.push(decoder),
                other => {
                    let kind = serde_json::to_value(&other).ok();
                    let kind = kind.as_ref().and_then(|value| value["type"].as_str());
                    return Err(Failure::invalid(format!(
                        "grammars need a tokenizer whose tokens are pieces of text; this one has a decoder of the type {}",
                        kind.unwrap_or("unknown")
                    )));
                }
            }
        }
        Ok(Spelling::Stages(stages))
    }

    fn bytes(&self, token: String) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
                bytes.unwrap_or_else(|| token.into_bytes())
            }
            Spelling::Stages(stages) => {
                let mut text = token;
                for stage in stages {
                    if let DecoderWrapper::ByteFallback(_) = stage {
                        if is_byte_token(&text) {
                            return vec![u8::from_str_radix(&text[3..5], 16).unwrap_or_default()];
                        }
                        continue;
                    }
                    // Not the first of its text: that one may lose a space.
                    let Ok(next) = one(stage, vec!["a".into(), text], 1) else { return Vec::new() };
                    text = next;
                }
                text.into_bytes()
            }
        }
    }
}

fn trie_of(tokenizer: &AnyTokenizer, vocab: usize, ends: &[u32]) -> Outcome<TokTrie> {
    let spelling = Spelling::of(tokenizer)?;
    let added = tokenizer.get_added_vocabulary();
    let words: Vec<Vec<u8>> = (0..vocab as u32)
        .map(|id| {
            let Some(token) = tokenizer.id_to_token(id) else { return Vec::new() };
            if token.len() > MAX_TOKEN_BYTES {
                return Vec::new();
            }
            if added.is_special_token(&token) {
                return [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat();
            }
            spelling.bytes(token)
        })
        .collect();
    let spelled = |byte: u8| words.iter().any(|word| word[..] == [byte]);
    if !(b' '..=b'~').all(spelled) {
        return Err(Failure::invalid(
            "grammars need a tokenizer that can spell every text; this one lacks tokens of single letters",
        ));
    }
    let first = ends.first().copied().unwrap_or(INVALID_TOKEN);
    let trie = TokTrie::from(&TokRxInfo::new(vocab as u32, first), &words);
    Ok(if ends.is_empty() { trie } else { trie.with_eos_tokens(ends) })
}

struct Environment {
    tokenizer: Arc<AnyTokenizer>,
    trie: TokTrie,
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    /// The tokens that the model knows the text by; any that spell it where the tokenizer changes the text
    /// (a space put before it, a special token seen in it).
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<u32> {
        let encoded = std::str::from_utf8(bytes).ok().and_then(|text| {
            let ids = self.tokenizer.encode_fast(text, false).ok()?.get_ids().to_vec();
            let known = ids.iter().all(|id| (*id as usize) < self.trie.vocab_size());
            let spelled: Vec<u8> = if known {
                ids.iter().flat_map(|id| self.trie.token(*id).to_vec()).collect()
            } else {
                Vec::new()
            };
            (spelled == bytes).then_some(ids)
        });
        encoded.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }
}

/// What all grammars of a tokenizer share; may be used by several threads at once.
pub struct TtpuGrammarCompiler {
    factory: ParserFactory,
}

/// A grammar and what has been said of it so far. Not for several threads at once.
pub struct TtpuGrammar {
    matcher: Matcher,
}

fn refuse(error: impl std::fmt::Display) -> Failure {
    Failure::invalid(error.to_string())
}

impl TtpuGrammarCompiler {
    fn new(tokenizer: Arc<AnyTokenizer>, vocab: usize, ends: &[u32]) -> Outcome<TtpuGrammarCompiler> {
        let ends: Vec<u32> = ends.iter().copied().filter(|id| (*id as usize) < vocab).collect();
        let trie = trie_of(&tokenizer, vocab, &ends)?;
        let environment: TokEnv = Arc::new(Environment { tokenizer, trie });
        let mut factory = ParserFactory::new(
            &environment,
            InferenceCapabilities::default(),
            &SlicedBiasComputer::general_slices(),
        )
        .map_err(refuse)?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = 50_000; // one to two kilobytes each
        Ok(TtpuGrammarCompiler { factory })
    }

    fn compile(&self, kind: i32, text: &str) -> Outcome<TtpuGrammar> {
        if text.len() > MAX_SOURCE_BYTES {
            let message = format!("it has {} bytes, at most {MAX_SOURCE_BYTES} are compiled", text.len());
            return Err(Failure::invalid(message));
        }
        if nesting(text) > MAX_NESTING {
            return Err(Failure::invalid(format!("its brackets nest deeper than {MAX_NESTING}")));
        }
        on_large_stack(0, || {
            let grammar = source(kind, text)?;
            let mut matcher = Matcher::new(self.factory.create_parser(grammar));
            // What cannot be begun, or takes too long to, is told now.
            matcher.compute_mask_or_eos().map_err(refuse)?;
            Ok(TtpuGrammar { matcher })
        })
    }
}

/// How deep brackets nest, wherever they stand: what is inside a string counts as well.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn source(kind: i32, text: &str) -> Outcome<TopLevelGrammar> {
    let parse =
        || serde_json::from_str::<Value>(text).map_err(|e| Failure::invalid(format!("not JSON: {e}")));
    match kind {
        TTPU_GRAMMAR_JSON_SCHEMA => {
            let mut schema = parse()?;
            if let Value::Object(object) = &mut schema {
                object.entry("x-guidance").or_insert_with(|| json!({ "whitespace_pattern": WHITESPACE }));
            }
            Ok(TopLevelGrammar::from_json_schema(schema))
        }
        TTPU_GRAMMAR_REGEX => Ok(TopLevelGrammar::from_regex(text)),
        TTPU_GRAMMAR_CHOICES => {
            let Value::Array(choices) = parse()? else {
                return Err(Failure::invalid("choices must be a list of texts"));
            };
            let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
            let mut grammar = GrammarWithLexer::from_lark(format!("start: {}", choices.join(" | ")));
            grammar.name = Some("choices".into());
            Ok(TopLevelGrammar::from_grammar(grammar))
        }
        TTPU_GRAMMAR_LARK => Ok(TopLevelGrammar::from_lark(text.to_string())),
        other => Err(Failure::invalid(format!("no kind of grammar has the number {other}"))),
    }
}

/// `vocab` is the number of logits, `ends` are the tokens that end an answer.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_compiler_new(
    tokenizer: *const TtpuTokenizer,
    vocab: usize,
    ends: *const u32,
    count: usize,
    out: *mut *mut TtpuGrammarCompiler,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let compiler = TtpuGrammarCompiler::new((*tokenizer).inner.clone(), vocab, slice_in(ends, count))?;
        out.write(Box::into_raw(Box::new(compiler)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_compiler_free(compiler: *mut TtpuGrammarCompiler) {
    let _ = quietly(|| {
        if !compiler.is_null() {
            drop(Box::from_raw(compiler));
        }
    });
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_compile(
    compiler: *const TtpuGrammarCompiler,
    kind: i32,
    text: *const u8,
    len: usize,
    out: *mut *mut TtpuGrammar,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let grammar = (*compiler).compile(kind, text_in("it", text, len)?)?;
        out.write(Box::into_raw(Box::new(grammar)));
        Ok(())
    })
}

/// A copy that shares nothing with the grammar.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_clone(
    grammar: *const TtpuGrammar,
    out: *mut *mut TtpuGrammar,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        out.write(Box::into_raw(Box::new(TtpuGrammar { matcher: (*grammar).matcher.deep_clone() })));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_free(grammar: *mut TtpuGrammar) {
    let _ = quietly(|| {
        if !grammar.is_null() {
            drop(Box::from_raw(grammar));
        }
    });
}

/// A bit for each token that may come next, in `words` numbers; those of the tokens that end an answer when
/// nothing else may.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_mask(
    grammar: *mut TtpuGrammar,
    mask: *mut u32,
    words: usize,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        let allowed = (*grammar).matcher.compute_mask_or_eos().map_err(refuse)?;
        let allowed = allowed.as_slice();
        let mask = std::slice::from_raw_parts_mut(mask, words);
        let count = words.min(allowed.len());
        mask[..count].copy_from_slice(&allowed[..count]);
        mask[count..].fill(0);
        Ok(())
    })
}

/// Goes on by as many of the tokens as the grammar allows, and says how many.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_accept(
    grammar: *mut TtpuGrammar,
    ids: *const u32,
    len: usize,
    accepted: *mut usize,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        accepted.write((*grammar).matcher.try_consume_tokens(slice_in(ids, len)).map_err(refuse)?);
        Ok(())
    })
}

/// How many of the tokens the grammar allows, one after the other.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_validate(
    grammar: *mut TtpuGrammar,
    ids: *const u32,
    len: usize,
    allowed: *mut usize,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        allowed.write((*grammar).matcher.validate_tokens(slice_in(ids, len)).map_err(refuse)?);
        Ok(())
    })
}

/// Takes back the last `count` tokens that were accepted.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_rollback(
    grammar: *mut TtpuGrammar,
    count: usize,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || (*grammar).matcher.rollback(count).map_err(refuse))
}

/// The tokens that must come next, whatever the model says; often none.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_forced(
    grammar: *mut TtpuGrammar,
    out: *mut TtpuIds,
    error: *mut TtpuBytes,
) -> i32 {
    guard(error, || {
        out.write(ids_out((*grammar).matcher.compute_ff_tokens()));
        Ok(())
    })
}

/// Whether the text is whole and nothing can follow.
#[no_mangle]
pub unsafe extern "C" fn ttpu_grammar_is_stopped(grammar: *const TtpuGrammar) -> bool {
    quietly(|| (*grammar).matcher.is_stopped()).unwrap_or(true)
}
