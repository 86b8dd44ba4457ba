//! Bodies made from a template of the user's, in the language of Jinja.
//!
//! What a template puts out is text within JSON: values are escaped as JSON strings are, so `"{{ text }}"` is a valid
//! string whatever the text, and `{{ texts|tojson }}` a valid list. (The reference escapes as in HTML, which changes quotes
//! and ampersands of the text.)

use super::images::Images;
use super::{Facts, Options, Splice, Unfit, put_json};
use maser_datasets::{Conversation, Media, Turn};
use minijinja::{Environment, ErrorKind, Value as Shown};
use serde_json::{Map, Value, json};

pub(super) const FACTS: Facts = Facts {
    name: "template",
    can_stream: true,
    produces_tokens: true,
    media: [true; 3],
    images: Images::InMessages("image_url"),
    holds_conversations: true,
    body,
    ..Facts::PLAIN
};

/// The rendered template, which must be JSON; if an object, with the extras over its fields. A session's turns stand each
/// by themselves, but the template sees those before.
fn body(options: &Options, conversation: &Conversation, k: usize, out: &mut Vec<u8>) -> Result<Splice, Unfit> {
    let unfit = |what: String| Unfit::new(format!("--endpoint-type template: {what}"));
    let Some(source) = &options.template else {
        return Err(unfit("no template is given".into()));
    };
    let text = environment().render_str(source, variables(options, conversation, k)).map_err(|e| match e.kind() {
        ErrorKind::OutOfFuel => unfit(format!("the template does not come to an end within {FUEL} steps")),
        _ => unfit(format!("the template cannot be rendered: {e}")),
    })?;
    let mut body: Value = serde_json::from_str(&text)
        .map_err(|e| unfit(format!("the template rendered for session {} is no JSON: {e}", conversation.session_id)))?;
    if let Value::Object(fields) = &mut body {
        for extras in [&options.extra, &conversation.turns[k].extra] {
            fields.extend(extras.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    put_json(out, &body);
    Ok(Splice::NONE)
}

/// Steps that the rendering of one body may take: a second or two.
const FUEL: u64 = 10_000_000;

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|out, _, value| {
        let text = match value.as_str() {
            Some(text) if !value.is_safe() => escaped(text),
            // Absent values are the empty text, as in Jinja.
            None if value.is_undefined() => String::new(),
            None if value.is_none() => "null".to_owned(),
            _ => value.to_string(),
        };
        out.write_str(&text)?;
        Ok(())
    });
    environment
}

/// The text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

/// What a template can name.
fn variables(options: &Options, conversation: &Conversation, k: usize) -> Shown {
    let turn = &conversation.turns[k];
    let (texts, images) = (all(&turn.texts), all(&turn.images));
    let (audios, videos) = (all(&turn.audios), all(&turn.videos));
    let named = |names: [&str; 2]| -> Vec<&str> {
        let of = turn.texts.iter().filter(|text| names.contains(&text.name.as_str()));
        of.flat_map(|text| text.contents.iter().map(String::as_str)).collect()
    };
    let (queries, passages) = (named(["query", "queries"]), named(["passage", "passages"]));
    let turns: Vec<Value> = conversation.turns[..=k].iter().map(shown).collect();
    let mut variables = json!({
        "texts": texts,
        "images": images,
        "audios": audios,
        "videos": videos,
        "queries": queries,
        "passages": passages,
        "texts_by_name": by_name(&turn.texts),
        "images_by_name": by_name(&turn.images),
        "audios_by_name": by_name(&turn.audios),
        "videos_by_name": by_name(&turn.videos),
        "model": turn.model.as_ref().unwrap_or(&options.model),
        "max_tokens": turn.max_tokens,
        "role": turn.role.as_deref().unwrap_or("user"),
        "stream": options.streaming,
        "turn": shown(turn),
        "turns": turns,
    });
    let firsts = [
        ("text", &texts),
        ("image", &images),
        ("audio", &audios),
        ("video", &videos),
        ("query", &queries),
        ("passage", &passages),
    ];
    for (name, all) in firsts {
        if let (Some(first), Value::Object(variables)) = (all.first(), &mut variables) {
            variables.insert(name.to_owned(), (*first).into());
        }
    }
    Shown::from_serialize(variables)
}

fn all(media: &[Media]) -> Vec<&str> {
    media.iter().flat_map(|media| media.contents.iter().map(String::as_str)).collect()
}

fn by_name(media: &[Media]) -> Map<String, Value> {
    let mut names: Map<String, Value> = Map::new();
    for media in media.iter().filter(|media| !media.name.is_empty()) {
        let contents = media.contents.iter().map(|content| Value::from(content.as_str()));
        let known = names.entry(media.name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(known) = known {
            known.extend(contents);
        }
    }
    names
}

fn shown(turn: &Turn) -> Value {
    json!({
        "role": turn.role.as_deref().unwrap_or("user"),
        "model": turn.model,
        "max_tokens": turn.max_tokens,
        "texts": all(&turn.texts),
        "images": all(&turn.images),
        "audios": all(&turn.audios),
        "videos": all(&turn.videos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str, turn: Turn, extra: Value) -> Result<String, String> {
        let options = Options {
            model: "m".into(),
            template: Some(template.into()),
            extra: extra.as_object().cloned().unwrap_or_default(),
            ..Options::default()
        };
        let conversation = Conversation { session_id: "s".into(), turns: vec![turn], ..Conversation::default() };
        let mut out = Vec::new();
        body(&options, &conversation, 0, &mut out).map_err(|unfit| unfit.0)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn any_text_is_rendered_into_valid_json() {
        let hard = "a \"b\" <c> & 'd' \\ \n 日";
        for template in [r#"{"t": "{{ text }}"}"#, r#"{"t": {{ text|tojson }}}"#, r#"{"t": "{{ texts[0] }}"}"#] {
            let body = rendered(template, Turn::of_text(hard.into()), json!({})).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"t": hard}), "{template}");
        }
    }

    #[test]
    fn templates_see_the_turn_and_extras_go_over_them() {
        let turn = Turn {
            texts: vec![
                Media { name: "query".into(), contents: vec!["q".into()], ..Media::default() },
                Media { name: "passages".into(), contents: vec!["x".into(), "y".into()], ..Media::default() },
            ],
            images: vec!["u".into()],
            max_tokens: Some(4),
            ..Turn::default()
        };
        let template = r#"{"q":"{{ query }}","p":{{ passages|tojson }},"n":{{ max_tokens }},"m":"{{ model }}","s":{{ stream|tojson }},
            "i":[{% for image in images %}"{{ image }}"{% if not loop.last %},{% endif %}{% endfor %}],
            "b":{{ texts_by_name.passages|tojson }},"r":"{{ turns[0].role }}","none":"{{ nothing }}"}"#;
        assert_eq!(
            rendered(template, turn, json!({"n": 5, "x": 1})).unwrap(),
            r#"{"q":"q","p":["x","y"],"n":5,"m":"m","s":false,"i":["u"],"b":["x","y"],"r":"user","none":"","x":1}"#
        );
    }

    #[test]
    fn what_is_no_template_or_no_json_is_refused() {
        let refused = |template: &str| rendered(template, Turn::of_text("t".into()), json!({})).unwrap_err();
        assert!(refused("{{ text").contains("cannot be rendered"));
        let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
        assert!(refused(endless).contains("does not come to an end within 10000000 steps"));
        assert!(refused("{\"a\": {{ text }}}").contains("session s is no JSON"));
        let mut out = Vec::new();
        let conversation = Conversation { turns: vec![Turn::default()], ..Conversation::default() };
        assert!(body(&Options::default(), &conversation, 0, &mut out).is_err());
    }
}
