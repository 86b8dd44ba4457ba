//! SOLIDO's retrieval-augmented generation: always a whole answer, with the documents it is drawn from.

use super::fields::{Fields, prompt_tokens};
use super::{Ask, Body, Dialect, Facts, Request};
use crate::serve::errors::{Refused, Vendor};
use crate::serve::http::Events;
use crate::serve::world::World;
use serde_json::json;

/// `/rag/api/prompt`.
#[derive(Debug)]
pub(in crate::serve) struct Solido;

impl Dialect for Solido {
    fn read(&self, request: &Request<'_>, world: &mut World) -> Result<Ask, Refused> {
        let fields = Fields::read(request)?;
        let query = fields.need("query")?;
        if !query.is_string() && !query.is_array() {
            return Err(Refused::bad("query is neither a string nor an array"));
        }
        let mut ask = Ask::new(world, fields.tokens("max_tokens")?, prompt_tokens(query));
        ask.model = fields.text("inference_model")?.map_or(Ok(0), |name| world.model(name))?;
        ask.messages = query.as_array().map_or(1, Vec::len) as u32;
        Ok(ask)
    }

    fn whole(&self, body: &mut Body, facts: &Facts<'_>) {
        body.bytes(b"{\"content\":\"");
        body.text(facts.text(0, facts.ask.tokens));
        body.bytes(b"\",\"sources\":");
        body.json(&json!([{"id": "doc-0", "source": "document_0.txt", "score": 0.95}]));
        body.bytes(b",");
        super::openai::final_usage(&mut body.bytes, facts);
        body.bytes(b"}");
    }

    // Nothing here asks for a stream.
    fn tokens(&self, _: &mut Events<'_>, _: &Facts<'_>, _: u32, _: u32) {}

    fn fail(&self, out: &mut Events<'_>, _: &Facts<'_>, why: &str) {
        out.json("", &Vendor::Detail.object(500, why));
    }
}
