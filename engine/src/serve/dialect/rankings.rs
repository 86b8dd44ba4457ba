//! Rankings of passages against a query, in the forms of NIM, Cohere and Text Embeddings Inference. The scores depend on
//! the texts alone; the best comes first.

use super::fields::{Fields, text_bytes};
use super::{Ready, Request, tokens_of};
use crate::serve::errors::Refused;
use crate::serve::world::{World, mix};
use serde_json::{Value, json};

/// `/v1/ranking`.
pub(in crate::serve) fn nim(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    fields.model(world)?;
    let query = fields.need("query")?;
    if !query["text"].is_string() {
        return Err(Refused::bad("query.text is missing"));
    }
    let (ranked, tokens) = rank(query, fields.list("passages")?, "passages", None)?;
    let rankings = ranked.iter().map(|&(index, score)| json!({"index": index, "logit": (score / (1.0 - score)).ln()}));
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Ready::json(&json!({"rankings": rankings.collect::<Vec<_>>(), "usage": usage}), tokens))
}

/// `/v2/rerank`.
pub(in crate::serve) fn cohere(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    fields.model(world)?;
    let query = fields.need_text("query")?;
    let most = fields.count("top_n", u32::MAX)?;
    let (ranked, tokens) = rank(&json!(query), fields.list("documents")?, "documents", most)?;
    let results = ranked.iter().map(|&(index, score)| json!({"index": index, "relevance_score": score}));
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"search_units": 1}});
    let answer = json!({"id": world.id(request.number), "results": results.collect::<Vec<_>>(), "meta": meta});
    Ok(Ready::json(&answer, tokens))
}

/// `/rerank`: with `texts` as Text Embeddings Inference has it, with `documents` as Cohere does.
pub(in crate::serve) fn tei(request: &Request<'_>, world: &mut World) -> Result<Ready, Refused> {
    let fields = Fields::read(request)?;
    if fields.get("texts").is_none() && fields.get("documents").is_some() {
        return cohere(request, world);
    }
    let query = fields.need_text("query")?;
    let texts = fields.list("texts")?;
    let (ranked, tokens) = rank(&json!(query), texts, "texts", None)?;
    let with_text = fields.flag("return_text")?;
    let ranks = ranked.iter().map(|&(index, score)| {
        let mut rank = json!({"index": index, "score": score});
        if with_text {
            rank["text"] = texts.get(index).cloned().unwrap_or_default();
        }
        rank
    });
    Ok(Ready::json(&ranks.collect::<Vec<_>>().into(), tokens))
}

/// The passages' indices with their scores between 0 and 1, the best first, and the tokens of all texts.
fn rank(query: &Value, passages: &[Value], name: &str, most: Option<u32>) -> Result<(Vec<(usize, f64)>, u32), Refused> {
    if passages.is_empty() {
        return Err(Refused::bad(format!("{name} is empty")));
    }
    let mut ranked = Vec::new();
    for (index, passage) in passages.iter().enumerate() {
        if !passage.is_string() && !passage["text"].is_string() && !passage["image"].is_string() {
            return Err(Refused::bad(format!("{name}[{index}] is no text")));
        }
        let key = crc32fast::hash(format!("{query}{passage}").as_bytes());
        let score = (mix(key.into()) >> 44) as f64 + 0.5;
        ranked.push((index, score / f64::from(1 << 20)));
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(most.map_or(usize::MAX, |n| n as usize));
    // The query is read with each passage.
    let bytes = text_bytes(query) * passages.len() + passages.iter().map(text_bytes).sum::<usize>();
    Ok((ranked, tokens_of(bytes)))
}
