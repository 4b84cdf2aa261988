//! Byte-pair encoding over a vocabulary that lies in one buffer: a model for the `tokenizers` crate that is
//! ready in a tenth of the time that its own takes, with the same result.
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::{Path, PathBuf};

use ahash::RandomState;
use hashbrown::HashTable;
use serde::Deserialize;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{Model, Result, Token};

use crate::{Failure, Outcome};

/// Tokens made by a merge are not longer than this.
const MAX_MERGED_BYTES: usize = 512;

/// Texts end to end in one buffer.
pub struct Texts {
    text: String,
    ends: Vec<u32>,
}

impl Texts {
    /// `ends` are where each text ends in `bytes`. Fails unless each is UTF-8 by itself.
    pub fn new(what: &str, bytes: &[u8], ends: &[u32]) -> Outcome<Texts> {
        let refuse = |why: &str| Err(Failure::invalid(format!("{what} {why}; the file is damaged")));
        let Ok(text) = std::str::from_utf8(bytes) else { return refuse("are not UTF-8") };
        if ends.windows(2).any(|pair| pair[0] > pair[1])
            || ends.last().is_some_and(|end| *end as usize != text.len())
        {
            return refuse("do not follow each other");
        }
        if ends.iter().any(|end| !text.is_char_boundary(*end as usize)) {
            return refuse("are not UTF-8");
        }
        Ok(Texts { text: text.to_owned(), ends: ends.to_vec() })
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> &str {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[begin as usize..self.ends[index] as usize]
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// Tokens and their ids. Of equal tokens the last one counts.
struct Vocabulary {
    tokens: Texts,
    ids: HashTable<u32>,
    hasher: RandomState,
}

impl Vocabulary {
    fn new(tokens: Texts) -> Vocabulary {
        let hasher = RandomState::new();
        let mut ids = HashTable::with_capacity(tokens.len());
        let hash = |id: &u32| hasher.hash_one(tokens.get(*id as usize));
        for (id, token) in tokens.iter().enumerate() {
            let same = |other: &u32| tokens.get(*other as usize) == token;
            match ids.find_mut(hasher.hash_one(token), same) {
                Some(found) => *found = id as u32,
                None => {
                    ids.insert_unique(hasher.hash_one(token), id as u32, hash);
                }
            }
        }
        Vocabulary { tokens, ids, hasher }
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(token), |id| self.tokens.get(*id as usize) == token).copied()
    }

    fn text(&self, id: u32) -> &str {
        self.tokens.get(id as usize)
    }

    fn joined(&self, left: u32, right: u32) -> Option<u32> {
        let (left, right) = (self.text(left), self.text(right));
        let size = left.len() + right.len();
        let mut buffer = [0; MAX_MERGED_BYTES];
        let joined = buffer.get_mut(..size)?;
        joined[..left.len()].copy_from_slice(left.as_bytes());
        joined[left.len()..].copy_from_slice(right.as_bytes());
        self.id(std::str::from_utf8(joined).ok()?)
    }
}

/// Of two merges the one of the lower rank comes first.
type Rank = (u32, u32, u32);
/// The rank of a merge and the token that it gives.
type Merged = (Rank, u32);

/// How neighbours are merged.
pub enum Rule {
    /// The pairs of a list, the first of them first: "left right".
    Listed(Texts),
    /// Any pair that makes a token, the token of the best score first, then the longer left part, then the
    /// longer right part. This is the list that transformers' generate_merges recovers from a SentencePiece
    /// vocabulary, without making the list.
    Scored(Vec<f32>),
    /// The same with the order of the tokens for their scores.
    InOrder,
}

enum Merges {
    Listed(HashMap<(u32, u32), Merged, RandomState>),
    Scored(Vec<f32>),
    InOrder,
}

fn listed(pairs: &Texts, vocabulary: &Vocabulary) -> Outcome<Merges> {
    let mut merges = HashMap::with_capacity_and_hasher(pairs.len(), RandomState::new());
    for (rank, pair) in pairs.iter().enumerate() {
        let refuse = |why: &str| Failure::invalid(format!("the merge '{pair}' {why}; the file is damaged"));
        // A space that begins the pair is part of its first token.
        let begin = pair.chars().next().map_or(0, char::len_utf8);
        let (left, right) = match pair[begin..].split_once(' ') {
            Some((left, right)) if !right.is_empty() => (&pair[..begin + left.len()], right),
            _ => return Err(refuse("is not two tokens")),
        };
        let joined = || vocabulary.id(&[left, right].concat());
        match (vocabulary.id(left), vocabulary.id(right), joined()) {
            (Some(left), Some(right), Some(id)) => merges.insert((left, right), ((rank as u32, 0, 0), id)),
            _ => return Err(refuse("is of tokens that the vocabulary lacks")),
        };
    }
    Ok(Merges::Listed(merges))
}

/// Puts floats in order, the highest first.
fn descending(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0 is 0
    if bits >> 31 == 0 {
        !(bits | 0x8000_0000)
    } else {
        bits
    }
}

/// The fields of a tokenizer.json's model of type "BPE", less its lists.
#[derive(Deserialize)]
pub struct Options {
    /// Stands for what the vocabulary cannot spell.
    pub unk_token: Option<String>,
    /// A run of unknown characters is one token.
    pub fuse_unk: bool,
    /// A character that is no token is spelled in tokens `<0xXX>`, where there are such.
    pub byte_fallback: bool,
    /// A whole word that is a token is taken as it is.
    pub ignore_merges: bool,
}

pub struct Bpe {
    vocabulary: Vocabulary,
    merges: Merges,
    unknown: Option<u32>,
    options: Options,
    bytes: Vec<Option<u32>>,
}

/// A run of the word's bytes that is one token so far.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    len: u32, // in bytes; 0 when it was merged into the one before it
    previous: Option<u32>,
    next: Option<u32>,
}

/// A merge that may be done: its rank, the place of its left part, the token that it gives.
type Candidate = Reverse<(Rank, u32, u32)>;

/// A word while its symbols are merged.
struct Word {
    symbols: Vec<Symbol>,
}

impl Word {
    fn push(&mut self, id: u32, len: usize) {
        let index = self.symbols.len() as u32;
        let previous = index.checked_sub(1);
        if let Some(last) = self.symbols.last_mut() {
            last.next = Some(index);
        }
        self.symbols.push(Symbol { id, len: len as u32, previous, next: None });
    }
}

impl Bpe {
    pub fn new(tokens: Texts, rule: Rule, options: Options) -> Outcome<Bpe> {
        let count = tokens.len();
        let vocabulary = Vocabulary::new(tokens);
        let unknown = options.unk_token.as_ref().map(|token| {
            vocabulary.id(token).ok_or_else(|| Failure::invalid(format!("the vocabulary lacks '{token}'")))
        });
        let merges = match rule {
            Rule::Listed(pairs) => listed(&pairs, &vocabulary)?,
            Rule::Scored(scores) if scores.len() == count => Merges::Scored(scores),
            Rule::Scored(_) => return Err(Failure::invalid("there is not one score for each token")),
            Rule::InOrder => Merges::InOrder,
        };
        let bytes = (0..=255).map(|byte| vocabulary.id(&format!("<0x{byte:02X}>"))).collect();
        Ok(Bpe { vocabulary, merges, unknown: unknown.transpose()?, options, bytes })
    }

    pub fn text(&self, id: u32) -> Option<&str> {
        ((id as usize) < self.vocabulary.tokens.len()).then(|| self.vocabulary.text(id))
    }

    fn merged(&self, left: u32, right: u32) -> Option<Merged> {
        if let Merges::Listed(merges) = &self.merges {
            return merges.get(&(left, right)).copied();
        }
        let id = self.vocabulary.joined(left, right)?;
        let shortness = |id| u32::from(u16::MAX) - self.vocabulary.text(id).chars().count() as u32;
        let lengths = shortness(left) << 16 | shortness(right);
        Some(match &self.merges {
            Merges::Scored(scores) => ((descending(scores[id as usize]), lengths, id), id),
            _ => ((id, lengths, 0), id),
        })
    }

    /// The word in single characters.
    fn spell(&self, text: &str) -> Word {
        let mut word = Word { symbols: Vec::with_capacity(text.len()) };
        let mut unknown_bytes = 0;
        for (at, c) in text.char_indices() {
            let character = &text[at..at + c.len_utf8()];
            let id = self.vocabulary.id(character);
            if id.is_none() && self.options.byte_fallback {
                let bytes: Option<Vec<u32>> = character.bytes().map(|b| self.bytes[b as usize]).collect();
                if let Some(bytes) = bytes {
                    bytes.into_iter().for_each(|byte| word.push(byte, 1));
                    continue;
                }
            }
            let Some(unknown) = self.unknown else {
                if let Some(id) = id {
                    word.push(id, character.len());
                }
                continue;
            };
            if unknown_bytes > 0 && (id.is_some() || !self.options.fuse_unk) {
                word.push(unknown, std::mem::take(&mut unknown_bytes));
            }
            match id {
                Some(id) => word.push(id, character.len()),
                None => unknown_bytes += character.len(),
            }
        }
        if let (Some(unknown), true) = (self.unknown, unknown_bytes > 0) {
            word.push(unknown, unknown_bytes);
        }
        word
    }

    fn candidate(&self, word: &Word, left: u32) -> Option<Candidate> {
        let symbol = word.symbols[left as usize];
        let (rank, id) = self.merged(symbol.id, word.symbols[symbol.next? as usize].id)?;
        Some(Reverse((rank, left, id)))
    }

    fn merge(&self, word: &mut Word) {
        let lefts = 0..word.symbols.len() as u32;
        let mut queue: BinaryHeap<Candidate> = lefts.filter_map(|left| self.candidate(word, left)).collect();
        while let Some(Reverse((_, left, id))) = queue.pop() {
            let symbol = word.symbols[left as usize];
            let Some(next) = symbol.next.filter(|_| symbol.len > 0) else { continue };
            let right = word.symbols[next as usize];
            // One of the two may have become another since.
            if self.merged(symbol.id, right.id).is_none_or(|(_, now)| now != id) {
                continue;
            }
            let whole = Symbol { id, len: symbol.len + right.len, next: right.next, ..symbol };
            word.symbols[left as usize] = whole;
            word.symbols[next as usize].len = 0;
            if let Some(after) = right.next {
                word.symbols[after as usize].previous = Some(left);
            }
            queue.extend(symbol.previous.and_then(|previous| self.candidate(word, previous)));
            queue.extend(self.candidate(word, left));
        }
        word.symbols.retain(|symbol| symbol.len > 0);
    }
}

impl Model for Bpe {
    type Trainer = BpeTrainer;

    fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        let token = |id, begin, end| Token::new(id, self.vocabulary.text(id).to_owned(), (begin, end));
        if u32::try_from(text.len()).is_err() {
            return Err("a word of more than 4 GB".into());
        }
        if self.options.ignore_merges {
            if let Some(id) = self.vocabulary.id(text) {
                return Ok(vec![token(id, 0, text.len())]);
            }
        }
        let mut word = self.spell(text);
        self.merge(&mut word);
        let mut at = 0;
        let tokens = word.symbols.iter().map(|symbol| {
            let begin = at;
            at += symbol.len as usize;
            token(symbol.id, begin, at)
        });
        Ok(tokens.collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.text(id).map(str::to_owned)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.vocabulary.ids.iter().map(|id| (self.vocabulary.text(*id).to_owned(), *id)).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary.tokens.len()
    }

    fn save(&self, _folder: &Path, _prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        Err("this model is read only".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}
