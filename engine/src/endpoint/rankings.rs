//! The ranking protocols of Hugging Face, NVIDIA NIM and Cohere: one question, several passages, a score for each.

use super::body::{Body, Report};
use super::found::{Want, read_wanted};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable};
use maser_datasets::{Conversation, Media, Turn};
use serde_json::json;

pub(super) const HF_TEI: Facts =
    Facts { name: "hf_tei_rankings", path: "/rerank", title: "Ranking Metrics", body: hf_tei, read, ..Facts::PLAIN };

pub(super) const NIM: Facts =
    Facts { name: "nim_rankings", path: "/v1/ranking", title: "Rankings Metrics", body: nim, read, ..Facts::PLAIN };

pub(super) const COHERE: Facts =
    Facts { name: "cohere_rankings", path: "/v2/rerank", title: "Ranking Metrics", body: cohere, read, ..Facts::PLAIN };

/// The texts named `query` or `queries`, of which there must be one, and those named `passage` or `passages`.
fn parts<'t>(facts: &Facts, conversation: &'t Conversation, turn: &'t Turn) -> Result<(&'t str, Vec<&'t str>), Unfit> {
    let named = |names: [&str; 2]| {
        let all: Vec<&Media> = turn.texts.iter().filter(|text| names.contains(&text.name.as_str())).collect();
        all.into_iter().flat_map(|text| text.contents.iter().map(String::as_str)).collect::<Vec<_>>()
    };
    match named(["query", "queries"]).as_slice() {
        [query] => Ok((query, named(["passage", "passages"]))),
        queries => Err(Unfit::new(format!(
            "--endpoint-type {}: a ranking asks one question, a text named `query`, and a turn of session {} has {}",
            facts.name,
            conversation.session_id,
            queries.len()
        ))),
    }
}

/// `{"query":Q,"texts":[…]}`.
fn hf_tei(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let (query, passages) = parts(&HF_TEI, conversation, turn)?;
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.put("query", query);
    body.put("texts", &passages);
    body.finish();
    Ok(Splice::NONE)
}

/// `{"model","query":{"text":Q},"passages":[{"text":P}]}`.
fn nim(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let (query, passages) = parts(&NIM, conversation, turn)?;
    let passages: Vec<_> = passages.into_iter().map(|text| json!({"text": text})).collect();
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.model();
    body.put("query", &json!({"text": query}));
    body.put("passages", &passages);
    body.finish();
    Ok(Splice::NONE)
}

/// `{"model","query":Q,"documents":[…]}`.
fn cohere(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let (query, passages) = parts(&COHERE, conversation, turn)?;
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.model();
    body.put("query", query);
    body.put("documents", &passages);
    body.finish();
    Ok(Splice::NONE)
}

/// One unit for each ranked passage. No passage at all is an answer without content.
fn read<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    read_wanted(json, &Want { rankings: true, ..Want::NOTHING }, reading)
}
