//! Chat templates: the text a server makes of messages before it encodes them.
//!
//! A template is Jinja as `transformers` runs it: block tags without their white space, loop controls, `generation` blocks,
//! Python's string methods, `tojson` without HTML escapes, `raise_exception`, and `strftime_now`. The latter gives one fixed
//! day, since the same run must have the same counts tomorrow. Lists and maps are written as Python does (a tuple as a list), but
//! look like JSON after `~` and in `format`; a template that uses what is not there (`%` on strings, changing a list) is refused
//! when it is opened.

mod python;

use std::fmt;
use std::path::Path;

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;

use crate::Error;

/// Steps that a rendering may take: a second or two. Templates of models take some tens a message.
const FUEL: u64 = 10_000_000;

/// One message as templates see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Message<'a> {
    /// `system`, `user` or `assistant`.
    pub role: &'a str,
    /// Its text.
    pub content: &'a str,
}

/// A tokenizer's chat template.
pub(super) struct Template {
    environment: Environment<'static>,
    /// Checksum of the source.
    sum: u32,
    bos: String,
    eos: String,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").field("bos", &self.bos).field("eos", &self.eos).finish_non_exhaustive()
    }
}

impl Template {
    /// The template that stands beside a tokenizer file: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json`, of several the one called `default`.
    ///
    /// # Errors
    /// A sentence naming the file that cannot be read or is no template.
    pub(super) fn beside(file: &Path) -> Result<Option<Self>, Error> {
        let Some(dir) = file.parent() else { return Ok(None) };
        let config = read(&dir.join("tokenizer_config.json"))?;
        let config: serde_json::Value = match &config {
            Some(text) => serde_json::from_str(text)
                .map_err(|e| Error(format!("{}: not JSON: {e}", dir.join("tokenizer_config.json").display())))?,
            None => serde_json::Value::Null,
        };
        let own = read(&dir.join("chat_template.jinja"))?;
        let Some(source) = own.or_else(|| in_config(&config)) else { return Ok(None) };
        let special = |name: &str| match config.get(name) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(token) => token.get("content").and_then(|c| c.as_str()).unwrap_or_default().to_owned(),
            None => String::new(),
        };
        let unusable = |e: String| Error(format!("the chat template in {} is not usable: {e}", dir.display()));
        let template =
            Self::new(&source, special("bos_token"), special("eos_token")).map_err(|e| unusable(e.to_string()))?;
        template.render(&[Message { role: "user", content: "Hi" }]).map_err(unusable)?;
        Ok(Some(template))
    }

    fn new(source: &str, bos: String, eos: String) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(python::write);
        environment.add_filter("tojson", python::to_json);
        environment.add_filter("string", python::string);
        environment.add_filter("join", python::join);
        environment.add_function("cycler", python::cycler);
        environment.add_function("raise_exception", |why: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_function("strftime_now", |format: String| python::strftime(&format));
        environment.add_function("joiner", minijinja_contrib::globals::joiner);
        environment.add_template_owned("chat", without_generation(source))?;
        Ok(Self { environment, sum: crc32fast::hash(source.as_bytes()), bos, eos })
    }

    /// Checksum of all that it writes by.
    pub(super) fn sum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new_with_initial(self.sum);
        for special in [&self.bos, &self.eos] {
            sum.update(special.as_bytes());
            sum.update(&[0]);
        }
        sum.finalize()
    }

    /// The text of `messages`, with what makes the model answer at its end.
    ///
    /// # Errors
    /// What the template said: some refuse roles or orders.
    pub(super) fn render(&self, messages: &[Message<'_>]) -> Result<String, String> {
        let context = context! {
            messages => messages,
            add_generation_prompt => true,
            tools => (),
            documents => (),
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        let template = self.environment.get_template("chat").map_err(|e| e.to_string())?;
        template.render(context).map_err(|e| match e.kind() {
            ErrorKind::OutOfFuel => format!("it does not come to an end within {FUEL} steps"),
            _ => e.to_string(),
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error(format!("cannot read {}: {e}", path.display()))),
    }
}

/// The same template with `{% generation %}` blocks, which mark what a model is trained on, as blocks that do nothing.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let word = tag.trim_start_matches(['-', '+']).trim_start();
        let (word, plain) = match word.strip_prefix("end") {
            Some(word) => (word, "endwith"),
            None => (word, "with"),
        };
        if let Some(after) = word.strip_prefix("generation")
            && after.trim_start().trim_start_matches(['-', '+']).starts_with("%}")
        {
            out.push_str(tag.split(|c: char| c.is_ascii_lowercase()).next().unwrap_or_default());
            out.push_str(plain);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn in_config(config: &serde_json::Value) -> Option<String> {
    match config.get("chat_template")? {
        serde_json::Value::String(source) => Some(source.clone()),
        serde_json::Value::Array(named) => {
            let default = named.iter().find(|t| t.get("name").and_then(|n| n.as_str()) == Some("default"));
            default.or(named.first())?.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message<'_>]) -> Result<String, String> {
        Template::new(source, "<s>".into(), "</s>".into()).unwrap().render(messages)
    }

    const TWO: [Message<'static>; 2] =
        [Message { role: "user", content: " Hi " }, Message { role: "assistant", content: "Ho" }];

    #[test]
    fn templates_have_what_they_use() {
        for (source, want) in [
            (
                "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}\n\
                 {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
                "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>assistant\n",
            ),
            ("{{ bos_token }}{{ messages[0].content.strip().startswith('H') }}{{ eos_token }}", "<s>True</s>"),
            ("{{ messages[-1].content.split('o')[0] }}{{ messages[::-1][0].role }}", "Hassistant"),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            ("{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
            ("{{ {'a': [1, '<é>'], 'b': none} | tojson }}", "{\"a\": [1, \"<é>\"], \"b\": null}"),
            ("{{ {'a': 1} | tojson(indent=2) }}", "{\n  \"a\": 1\n}"),
            ("{{ strftime_now('%d %b %Y') }}", "01 Jan 2025"),
            ("{% if tools is defined and tools %}t{% else %}none{% endif %}", "none"),
            ("{%- macro f(x) -%}[{{ x }}]{%- endmacro -%}{{ f(messages[1].content) }}", "[Ho]"),
            ("    {% if true %}\n  x\n    {% endif %}\ny", "  x\ny"),
            ("{%- generation -%} x {%- endgeneration %}|{% raw %}{%{% endraw %}", "x|{%"),
        ] {
            assert_eq!(render(source, &TWO).as_deref(), Ok(want), "{source}");
        }
    }

    /// Templates in the ways of several models, and expressions one by one, as `transformers` 5 renders them for the date here.
    #[test]
    fn templates_are_rendered_as_the_models_authors_see_them() {
        #[derive(serde::Deserialize)]
        struct Row {
            template: String,
            messages: Vec<[String; 2]>,
            /// None where it refuses.
            want: Option<String>,
        }
        let rows: Vec<Row> = serde_json::from_str(include_str!("../../tests/data/chat_templates.json")).unwrap();
        for Row { template, messages, want } in &rows {
            let messages: Vec<Message<'_>> = messages.iter().map(|[role, content]| Message { role, content }).collect();
            let rendered = Template::new(template, "<s>".into(), "</s>".into())
                .map_err(|e| e.to_string())
                .and_then(|template| template.render(&messages));
            assert_eq!(rendered.as_ref().ok(), want.as_ref(), "{template}: {rendered:?}");
        }
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let why = render("{{ raise_exception('roles must alternate') }}", &TWO).unwrap_err();
        assert!(why.contains("roles must alternate"), "{why}");
    }

    #[test]
    fn a_template_without_end_is_told() {
        let loops = "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}";
        assert_eq!(render(loops, &TWO).unwrap_err(), "it does not come to an end within 10000000 steps");
        let circle = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(render(circle, &TWO).is_err());
    }

    #[test]
    fn templates_are_found_beside_a_tokenizer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokenizer.json");
        assert!(Template::beside(&file).unwrap().is_none());
        let config = dir.path().join("tokenizer_config.json");
        std::fs::write(
            &config,
            r#"{"bos_token": {"content": "<B>"}, "eos_token": null, "chat_template": [
            {"name": "rag", "template": "r"}, {"name": "default", "template": "{{ bos_token }}d{{ eos_token }}"}]}"#,
        )
        .unwrap();
        let of = || Template::beside(&file).unwrap().unwrap().render(&TWO);
        assert_eq!(of().as_deref(), Ok("<B>d"));
        std::fs::write(dir.path().join("chat_template.jinja"), "own {{ bos_token }}").unwrap();
        assert_eq!(of().as_deref(), Ok("own <B>"));
        std::fs::write(dir.path().join("chat_template.jinja"), "{% if %}").unwrap();
        let why = Template::beside(&file).unwrap_err().0;
        assert!(why.starts_with("the chat template in "), "{why}");
        std::fs::write(dir.path().join("chat_template.jinja"), "{{ messages[0].content % 'x' }}").unwrap();
        let why = Template::beside(&file).unwrap_err().0;
        assert!(
            why.contains("is not usable: invalid operation: tried to use % operator on unsupported types string"),
            "{why}"
        );
        std::fs::write(config, "{").unwrap();
        assert!(Template::beside(&file).unwrap_err().0.contains("tokenizer_config.json: not JSON"));
    }
}
