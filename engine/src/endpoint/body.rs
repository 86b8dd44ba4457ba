//! Bodies in the making: the endpoint's fields, the run's extras over them, the turn's extras over both.
//!
//! Extras are looked up, not merged into a tree: texts are large and must not be copied twice.

use super::{Options, put_json};
use maser_datasets::Turn;
use serde_json::{Map, Value};

const STREAM_OPTIONS: &str = "stream_options";

/// What a stream is asked to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// Nothing.
    Nothing,
    /// Usage at its end.
    Usage,
    /// Usage at its end, and with every event if the run wants that.
    UsageOrEach,
}

/// A JSON object being written. An extra of the name of an earlier field replaces its value in its place.
pub(super) struct Body<'t> {
    options: &'t Options,
    turn: &'t Turn,
    out: &'t mut Vec<u8>,
    /// Names written so far.
    written: Vec<&'static str>,
    report: Report,
}

impl<'t> Body<'t> {
    pub(super) fn begin(options: &'t Options, turn: &'t Turn, report: Report, out: &'t mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { options, turn, out, written: Vec::new(), report }
    }

    /// Bytes of everything so far, whatever stood before the body included.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// What the extras say of a field: the turn's word counts over the run's.
    fn extra(&self, name: &str) -> Option<&'t Value> {
        let (turn, run) = (&self.turn.extra, &self.options.extra);
        turn.get(name).or_else(|| run.get(name))
    }

    fn put_name(&mut self, name: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        put_json(self.out, name);
        self.out.push(b':');
    }

    pub(super) fn field(&mut self, name: &'static str, value: impl FnOnce(&mut Vec<u8>)) {
        self.put_name(name);
        match self.extra(name) {
            Some(extra) => put_json(self.out, extra),
            None => value(self.out),
        }
        self.written.push(name);
    }

    /// A field whose value is at hand.
    pub(super) fn put(&mut self, name: &'static str, value: &(impl serde::Serialize + ?Sized)) {
        self.field(name, |out| put_json(out, value));
    }

    /// The model: the turn's own, else the run's.
    pub(super) fn model(&mut self) {
        let model = self.turn.model.as_ref().unwrap_or(&self.options.model);
        self.put("model", model);
    }

    /// The extras that no field has taken, then what a stream is asked to report, and the end of the object.
    pub(super) fn finish(mut self) {
        let (turn, run) = (&self.turn.extra, &self.options.extra);
        let late = turn.keys().filter(|name| !run.contains_key(*name));
        for name in run.keys().chain(late) {
            if self.written.contains(&name.as_str()) {
                continue;
            }
            let Some(value) = self.extra(name) else {
                continue;
            };
            self.put_name(name);
            match value {
                Value::Object(given) if name == STREAM_OPTIONS && self.reports() => {
                    let merged = self.stream_options(given);
                    put_json(self.out, &merged);
                }
                value => put_json(self.out, value),
            }
        }
        if self.reports() && self.extra(STREAM_OPTIONS).is_none() {
            let merged = self.stream_options(&Map::new());
            self.put_name(STREAM_OPTIONS);
            put_json(self.out, &merged);
        }
        self.out.push(b'}');
    }

    fn reports(&self) -> bool {
        self.report != Report::Nothing && self.streams()
    }

    /// Whether the body asks for a stream: the merged value of `stream`.
    fn streams(&self) -> bool {
        self.extra("stream").map_or(self.options.streaming, is_true)
    }

    /// A stream reports usage unless its author decided otherwise.
    fn stream_options(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let mut merged = given.clone();
        merged.entry("include_usage").or_insert(Value::Bool(true));
        if self.report == Report::UsageOrEach && self.options.per_chunk_usage {
            merged.entry("continuous_usage_stats").or_insert(Value::Bool(true));
        }
        merged
    }
}

/// Truth by the reference's notion: everything but null, false, 0 and what is empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}
