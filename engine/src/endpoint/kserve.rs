//! KServe v2 (Open Inference Protocol) over HTTP, as Triton serves it: `infer` with tensors of text, and the generate
//! extension with its stream.

use super::body::{Body, Report};
use super::{Facts, Options, Reading, Splice, Unfit, Unreadable, content, put_json, usage};
use crate::wire::json::Scanner;
use maser_datasets::Conversation;
use serde_json::{Map, Value, json};

pub(super) const INFER: Facts = Facts {
    name: "kserve_infer",
    path: "/v2/models/{model}/infer",
    produces_tokens: true,
    body: infer,
    read: read_infer,
    ..Facts::PLAIN
};

pub(super) const GENERATE: Facts = Facts {
    name: "kserve_generate",
    path: "/v2/models/{model}/generate",
    streaming_path: "/v2/models/{model}/generate_stream",
    can_stream: true,
    produces_tokens: true,
    body: generate,
    read: read_generate,
    ..Facts::PLAIN
};

/// `{"inputs":[{"name":"text_input","shape":[n],"datatype":"BYTES","data":[…]},…]}`. The run's extras are tensors of one
/// element each, as an LLM ensemble of Triton takes them; an extra called `inputs`, `outputs`, `id` or `parameters`, and
/// the turn's extras, are fields of the body. Servers refuse inputs that the model does not declare, so the turn's limit is
/// one only where the extra `max_tokens` is there and `null`.
fn infer(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let texts: Vec<&str> = content::contents(&turn.texts).collect();
    let mut inputs = vec![json!({"name": "text_input", "shape": [texts.len()], "datatype": "BYTES", "data": texts})];
    let mut fields = Map::new();
    for (name, value) in &options.extra {
        match name.as_str() {
            "inputs" | "outputs" | "id" | "parameters" => {
                fields.insert(name.clone(), value.clone());
            }
            "max_tokens" if value.is_null() => {
                inputs.extend(turn.max_tokens.map(|limit| tensor(name, &limit.into())));
            }
            _ => {
                inputs.retain(|input| input.get("name").is_none_or(|known| known != name));
                inputs.push(tensor(name, value));
            }
        }
    }
    let mut body = Map::new();
    body.insert("inputs".into(), inputs.into());
    body.extend(fields);
    body.extend(turn.extra.clone());
    put_json(out, &body);
    Ok(Splice::NONE)
}

fn tensor(name: &str, value: &Value) -> Value {
    let datatype = match value {
        Value::Bool(_) => "BOOL",
        Value::Number(n) if n.is_f64() => "FP32",
        Value::Number(_) => "INT32",
        _ => "BYTES",
    };
    json!({"name": name, "shape": [1], "datatype": datatype, "data": [value]})
}

/// `{"text_input","max_tokens"?}` and the extras; `parameters` and `stream` come from there.
fn generate(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let turn = &conversation.turns[k];
    let texts: Vec<&str> = content::contents(&turn.texts).collect();
    let mut body = Body::begin(options, turn, Report::Nothing, out);
    body.put("text_input", &texts.join(" "));
    if let Some(limit) = turn.max_tokens {
        body.put("max_tokens", &limit);
    }
    if options.streaming {
        body.put("stream", &true);
    }
    body.finish();
    Ok(Splice::NONE)
}

/// The texts of every output tensor of text; a tensor of numbers is a unit.
fn read_infer<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(json);
    scanner.enter_object()?;
    while let Some(key) = scanner.next_key() {
        match key {
            b"outputs" => {
                if scanner.open_array() {
                    while scanner.next_element() {
                        read_tensor(&mut scanner, reading);
                    }
                }
            }
            b"error" => reading.set_error(scanner.raw()),
            b"usage" => reading.usage = usage::read(&mut scanner),
            _ => scanner.skip(),
        }
    }
    scanner.end()
}

fn read_tensor<'a>(scanner: &mut Scanner<'a>, reading: &mut Reading<'a>) {
    if !scanner.open_object() {
        return;
    }
    let mut data = &b"[]"[..];
    while let Some(key) = scanner.next_key() {
        match key {
            b"data" => data = scanner.raw(),
            _ => scanner.skip(),
        }
    }
    let mut scanner = Scanner::new(data);
    let (mut texts, mut numbers) = (false, false);
    if scanner.open_array() {
        while scanner.next_element() {
            match scanner.string() {
                Some(text) => {
                    texts = true;
                    reading.text.push(text);
                }
                None => numbers = true,
            }
        }
    }
    reading.units += u32::from(numbers && !texts);
}

/// The text is `text_output`, in one piece or a piece in each event. Pieces that hold all text so far (a backend set up
/// without `exclude_input_in_output` and its like) are counted as they come.
fn read_generate<'a>(json: &'a [u8], reading: &mut Reading<'a>) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(json);
    scanner.enter_object()?;
    while let Some(key) = scanner.next_key() {
        match key {
            b"text_output" => {
                if let Some(text) = scanner.string_or_stay() {
                    reading.text.push(text);
                } else if scanner.open_array() {
                    while scanner.next_element() {
                        reading.text.push(scanner.string().unwrap_or_default());
                    }
                }
            }
            b"error" => reading.set_error(scanner.raw()),
            b"usage" => reading.usage = usage::read(&mut scanner),
            _ => scanner.skip(),
        }
    }
    scanner.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use maser_datasets::Turn;

    #[test]
    fn the_limit_is_an_input_only_where_it_is_declared() {
        for (extra, wanted) in [
            (json!({}), None),
            (json!({"max_tokens": null}), Some(8)),
            (json!({"max_tokens": 5}), Some(5)),
            (json!({"temperature": 5}), None),
        ] {
            let extra = extra.as_object().unwrap().clone();
            let turn = Turn { max_tokens: Some(8), ..Turn::of_text("hi".into()) };
            let conversation = Conversation { turns: vec![turn], ..Conversation::default() };
            let mut body = Vec::new();
            infer(&Options { extra, ..Options::default() }, &conversation, 0, &mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let found = body["inputs"].as_array().unwrap().iter().find(|input| input["name"] == "max_tokens");
            assert_eq!(found.map(|input| input["data"][0].as_i64().unwrap()), wanted, "{body}");
        }
    }
}
