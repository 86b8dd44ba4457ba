//! `inputs_json`: the `inputs.json` that a run writes, sent again as it stands.
//!
//! ```json
//! {"data": [{"session_id": "session_000000", "payloads": [{"messages": [], "model": "m"}]}]}
//! ```
//! Every payload is a body of its own: nothing of the command line changes it. Numbers and escapes are written as this
//! program writes them, so a document of its own comes back byte for byte. A form is an object of its fields.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::formats::draft::{Draft, Emit, Prompt, Step};
use crate::read::jsonl::{Place, Row, in_field, in_row};
use crate::read::source;
use crate::{Context, Error, Turn};

/// Reads the document, one session at a time.
pub(crate) fn read(path: &Path, emit: Emit<'_>) -> Result<(), Error> {
    let mut document = Document { path, emit, seen: HashSet::new(), wrong: None, has_data: false };
    let mut json = serde_json::Deserializer::from_reader(source::open(path)?);
    let read = json.deserialize_map(&mut document).and_then(|()| json.end());
    match (document.wrong, read) {
        (Some(error), _) => Err(error),
        (None, Err(e)) => Err(Error::row(
            path,
            e.line(),
            format_args!("no inputs.json, {{\"data\": [{{session_id, payloads}}]}}: {e}"),
        )),
        (None, Ok(())) if !document.has_data => Err(Error::row(path, 1, "no inputs.json: there is no `data`")),
        (None, Ok(())) => Ok(()),
    }
}

/// The document as it is walked through. What is wrong with a session goes to `wrong`: serde's errors are texts.
struct Document<'a, 'e> {
    path: &'a Path,
    emit: Emit<'e>,
    seen: HashSet<String>,
    wrong: Option<Error>,
    has_data: bool,
}

impl<'de> Visitor<'de> for &mut Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list `data`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                self.has_data = true;
                map.next_value_seed(Sessions(self))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The list `data`.
struct Sessions<'d, 'a, 'e>(&'d mut Document<'a, 'e>);

impl<'de> DeserializeSeed<'de> for Sessions<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Sessions<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of {session_id, payloads}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self(document) = self;
        let mut at = 0;
        while let Some(session) = list.next_element::<Box<RawValue>>()? {
            at += 1;
            if let Err(e) = document.take(Place::Entry(at), session.get()) {
                document.wrong = Some(e);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

impl Document<'_, '_> {
    fn take(&mut self, place: Place, session: &str) -> Result<(), Error> {
        let draft = parse(&Row::parse(self.path, place, session)?)?;
        if let Some(id) = &draft.session_id
            && !self.seen.insert(id.clone())
        {
            return Err(place.error(self.path, format_args!("`session_id` {id:?} is that of another entry too")));
        }
        (self.emit)(draft)
    }
}

fn parse(row: &Row<'_>) -> Result<Draft, Error> {
    let session_id = row.string("session_id")?.ok_or_else(|| row.error("no `session_id`"))?;
    let bodies: Vec<&RawValue> = row
        .raw("payloads")
        .map_or(Ok(Vec::new()), serde_json::from_str)
        .map_err(|e| row.error(format_args!("`payloads` must be a list of bodies ({})", in_field(&e))))?;
    if bodies.is_empty() {
        return Err(row.error("`payloads` must hold at least one body"));
    }
    let mut steps = Vec::with_capacity(bodies.len());
    for (k, body) in bodies.into_iter().enumerate() {
        let body: Value = serde_json::from_str(body.get())
            .map_err(|e| row.error(format_args!("`payloads[{k}]` cannot be read: {}", in_row(&e))))?;
        if !(body.is_object() || body.is_array() || body.is_string()) {
            return Err(row.error(format_args!("`payloads[{k}]` must be a body: an object, a list or a text")));
        }
        let turn = Turn { payload: Some(body), ..Turn::default() };
        steps.push(Step { place: row.place, turn, prompt: Prompt::Given });
    }
    Ok(Draft {
        path: row.path.into(),
        session_id: Some(session_id),
        context: Context::MessageArray,
        system: None,
        steps,
    })
}
