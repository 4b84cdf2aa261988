//! The kinds of model that a tokenizer may have: those of the `tokenizers` crate, and our own `Bpe`.
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::{
    DecoderWrapper, Model, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Result, Token,
    TokenizerImpl,
};

use crate::bpe::Bpe;

pub enum AnyModel {
    Library(ModelWrapper),
    Bpe(Bpe),
}

pub type AnyTokenizer =
    TokenizerImpl<AnyModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

impl<'de> Deserialize<'de> for AnyModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<AnyModel, D::Error> {
        ModelWrapper::deserialize(deserializer).map(AnyModel::Library)
    }
}

/// Calls a method of whichever model it is.
macro_rules! each {
    ($any:expr, $model:ident => $call:expr) => {
        match $any {
            AnyModel::Library($model) => $call,
            AnyModel::Bpe($model) => $call,
        }
    };
}

impl Model for AnyModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        each!(self, model => model.tokenize(text))
    }
    fn token_to_id(&self, token: &str) -> Option<u32> {
        each!(self, model => model.token_to_id(token))
    }
    fn id_to_token(&self, id: u32) -> Option<String> {
        each!(self, model => model.id_to_token(id))
    }
    fn get_vocab(&self) -> HashMap<String, u32> {
        each!(self, model => model.get_vocab())
    }
    fn get_vocab_size(&self) -> usize {
        each!(self, model => model.get_vocab_size())
    }
    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        each!(self, model => model.save(folder, prefix))
    }
    fn get_trainer(&self) -> TrainerWrapper {
        each!(self, model => model.get_trainer().into())
    }
}
