//! Chat templates: the text a server makes of messages before it encodes them.
//!
//! A template is Jinja as `transformers` runs it: block tags without their white space, loop controls, Python's string
//! methods, `tojson` without HTML escapes, `raise_exception`, and `strftime_now`. The latter gives one fixed day, since the
//! same run must have the same counts tomorrow.

use std::fmt;
use std::path::Path;

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;

use crate::Error;

/// The day that templates are told it is.
const TODAY: (i32, u32, u32) = (2025, 1, 1);

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
        Self::new(source, special("bos_token"), special("eos_token"))
            .map(Some)
            .map_err(|e| Error(format!("the chat template in {} is not usable: {e}", dir.display())))
    }

    pub(super) fn new(source: String, bos: String, eos: String) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |why: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, TODAY));
        environment.add_template_owned("chat", source)?;
        Ok(Self { environment, bos, eos })
    }

    /// The text of `messages`, with what makes the model answer at its end.
    ///
    /// # Errors
    /// What the template said: some refuse roles or orders.
    pub(super) fn render(&self, messages: &[Message<'_>]) -> Result<String, String> {
        let context = context! {
            messages => messages,
            add_generation_prompt => true,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        let template = self.environment.get_template("chat").map_err(|e| e.to_string())?;
        template.render(context).map_err(|e| e.to_string())
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error(format!("cannot read {}: {e}", path.display()))),
    }
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

/// `tojson` as `transformers` defines it: plain JSON with a space after `:` and `,`, or indented; nothing is escaped for
/// HTML.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted and without effect: text is never escaped, key order is kept.
    let _: (Option<bool>, Option<Value>, Option<bool>) =
        (options.get("ensure_ascii")?, options.get("separators")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
        Some(n) => {
            let spaces = " ".repeat(n.min(16));
            let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
    };
    written.map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    String::from_utf8(out).map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// Python's default separators.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

/// The parts of `strftime` that templates ask for, of midnight on a day.
fn strftime(format: &str, (year, month, day): (i32, u32, u32)) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let name = MONTHS.get(month.saturating_sub(1) as usize).copied().unwrap_or_default();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('b' | 'h') => out.push_str(&name[..3]),
            Some('B') => out.push_str(name),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('H' | 'M' | 'S') => out.push_str("00"),
            Some('I') => out.push_str("12"),
            Some('p') => out.push_str("AM"),
            // A Wednesday.
            Some('A') => out.push_str("Wednesday"),
            Some('a') => out.push_str("Wed"),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message<'_>]) -> Result<String, String> {
        Template::new(source.into(), "<s>".into(), "</s>".into()).unwrap().render(messages)
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
            ("{% generation %}x{% endgeneration %}", ""),
        ] {
            if source.contains("generation %}") && want.is_empty() {
                assert!(Template::new(source.into(), String::new(), String::new()).is_err());
                continue;
            }
            assert_eq!(render(source, &TWO).as_deref(), Ok(want), "{source}");
        }
    }

    #[test]
    fn a_template_that_refuses_says_why() {
        let why = render("{{ raise_exception('roles must alternate') }}", &TWO).unwrap_err();
        assert!(why.contains("roles must alternate"), "{why}");
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
        std::fs::write(config, "{").unwrap();
        assert!(Template::beside(&file).unwrap_err().0.contains("tokenizer_config.json: not JSON"));
    }
}
