//! Answers under way: what of them is due is put into bytes, and the faults that happen within them.
//!
//! What the answers of a model have in common is laid out once; per send the id and the time of creation are patched in,
//! so that an event costs a few copies and no formatting.

use super::dialect::{Ask, Body, Dialect, Facts, Ready, Stem};
use super::digits::{put_decimal, put_hex};
use super::errors::{SERVER_ERROR, Vendor};
use super::http::{Events, JSON, LAST_CHUNK, Response, stream_head};
use super::pace::Pace;
use super::route::{PLACES, Way};
use super::world::World;
use super::{Config, Fault};
use crate::clock::Instant;

/// A send is not begun with more than about this: what is due beyond it goes with the next one.
const BATCH: usize = 64 * 1024;

const ID_LEN: usize = 32;
const CREATED_LEN: usize = 10;

/// An event that is no JSON.
const BROKEN: &[u8] = b"data: {\"id\":\"\n\n";

/// What an answer says.
#[derive(Debug)]
pub(super) enum Content {
    /// Tokens, in the dialect of the place.
    Tokens(&'static dyn Dialect),
    Made(Ready),
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its index among the places.
    pub(super) place: usize,
    pub(super) content: Content,
    /// For what was made at once, its events count as tokens here.
    pub(super) ask: Ask,
    pub(super) vendor: Vendor,
    pub(super) fault: Option<Fault>,
    pub(super) pace: Pace,
    /// Order among the requests for inference, from 0.
    pub(super) number: u64,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) keep: bool,
    /// Tokens of each choice put into events so far.
    pub(super) sent: u32,
    /// Events so far, and those with content among them.
    events: u32,
    contents: u32,
    head_sent: bool,
    spoiled: bool,
}

impl Answer {
    pub(super) fn new(content: Content, ask: Ask, place: usize, vendor: Vendor, pace: Pace) -> Self {
        Self {
            place,
            content,
            ask,
            vendor,
            fault: None,
            pace,
            number: 0,
            created: 0,
            keep: true,
            sent: 0,
            events: 0,
            contents: 0,
            head_sent: false,
            spoiled: false,
        }
    }

    fn half(&self) -> u32 {
        self.ask.tokens / 2
    }

    /// Tokens after which the stream ends, one way or the other.
    fn limit(&self) -> u32 {
        match self.fault {
            Some(Fault::Close | Fault::ErrorEvent) => self.half(),
            _ => self.ask.tokens,
        }
    }

    /// Tokens put into events so far, of all choices. A whole answer that breaks off does so in its first choice.
    pub(super) fn output_tokens(&self) -> u64 {
        let all_choices = self.ask.stream || self.fault != Some(Fault::Close);
        match &self.content {
            Content::Made(_) => 0,
            Content::Tokens(_) if all_choices => u64::from(self.sent) * u64::from(self.ask.choices),
            Content::Tokens(_) => self.sent.into(),
        }
    }
}

/// A stem with places for an id and a time of creation.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    id_at: usize,
    created_at: usize,
}

impl Template {
    fn new(stem: Stem, model: &str) -> Self {
        let mut bytes = stem.before_id.as_bytes().to_vec();
        let id_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; ID_LEN]);
        bytes.extend_from_slice(format!("\",\"object\":\"{}\",\"created\":", stem.object).as_bytes());
        let created_at = bytes.len();
        bytes.extend_from_slice(&[b'0'; CREATED_LEN]);
        let model = serde_json::Value::from(model);
        bytes.extend_from_slice(format!(",\"model\":{model},\"choices\":[").as_bytes());
        Self { bytes, id_at, created_at }
    }

    fn patch(&mut self, id: &[u8; ID_LEN], created: u64) {
        self.bytes[self.id_at..self.id_at + ID_LEN].copy_from_slice(id);
        put_decimal(&mut self.bytes[self.created_at..self.created_at + CREATED_LEN], created);
    }
}

/// The stems of a place: those of events and those of whole answers, one a model.
type Stems = [Vec<Template>; 2];

/// Puts answers into bytes.
#[derive(Debug)]
pub(super) struct Phrases {
    /// One entry a place.
    stems: Vec<Stems>,
    /// An event, until its length is known.
    scratch: Vec<u8>,
    body: Body,
}

impl Phrases {
    pub(super) fn new(config: &Config) -> Self {
        let templates = |dialect: &dyn Dialect, stream| {
            let of = |model: &String| dialect.stem(stream).map(|stem| Template::new(stem, model));
            config.models.iter().filter_map(of).collect()
        };
        let stems = PLACES.iter().map(|place| match place.way {
            Way::Tokens(dialect) => [templates(dialect, true), templates(dialect, false)],
            Way::Made(_) | Way::Told(_) => Stems::default(),
        });
        Self { stems: stems.collect(), scratch: Vec::new(), body: Body::default() }
    }

    /// Appends the whole answer as one response; `Close` cuts it after half the tokens, `Malformed` leaves the JSON open.
    pub(super) fn whole(&mut self, out: &mut Vec<u8>, answer: &mut Answer, world: &World) {
        if answer.fault == Some(Fault::ErrorEvent) {
            let body = answer.vendor.object(500, SERVER_ERROR).to_string();
            let response = Response { status: 200, content_type: JSON, fields: "", body: body.as_bytes() };
            return response.put(out, answer.keep, false);
        }
        self.body.begin(answer.ask.tokens);
        let content_type = match &answer.content {
            Content::Made(ready) => {
                self.body.bytes(&ready.body);
                ready.content_type
            }
            Content::Tokens(dialect) => {
                let id = id(world.id_key, answer.number);
                dialect.whole(&mut self.body, &facts(&mut self.stems, answer, world, &id));
                dialect.content_type(&answer.ask)
            }
        };
        let whole = self.body.bytes.len();
        if answer.fault == Some(Fault::Malformed) {
            self.body.bytes.truncate(self.body.end_at());
        }
        Response { status: 200, content_type, fields: "", body: &self.body.bytes }.put(out, answer.keep, false);
        answer.sent = answer.limit();
        if answer.fault == Some(Fault::Close) {
            out.truncate(out.len() - whole + self.body.half_at());
        }
    }

    /// Appends what is due of a stream at `now`, and to `dues` when each chunk of content was due. There is always
    /// something: the answer's next chunk must be due. Returns whether that was the end.
    pub(super) fn stream(
        &mut self,
        out: &mut Vec<u8>,
        dues: &mut Vec<Instant>,
        answer: &mut Answer,
        world: &World,
        now: Instant,
    ) -> bool {
        let id = id(world.id_key, answer.number);
        let begins = !std::mem::replace(&mut answer.head_sent, true);
        if begins {
            stream_head(out, answer.keep);
        }
        let (limit, half, fault) = (answer.limit(), answer.half(), answer.fault);
        let (mut sent, mut contents, mut spoiled) = (answer.sent, answer.contents, answer.spoiled);
        let mut events = Events::new(out, &mut self.scratch, answer.events);
        let mut pace = std::mem::take(&mut answer.pace);
        let facts = facts(&mut self.stems, answer, world, &id);
        if begins && let Content::Tokens(dialect) = &answer.content {
            dialect.open(&mut events, &facts);
        }
        while sent < limit && pace.due() <= now && events.len() < BATCH {
            if fault == Some(Fault::Malformed) && sent >= half && !std::mem::replace(&mut spoiled, true) {
                events.parts(&[BROKEN]);
            }
            dues.push(pace.due());
            let count = match &answer.content {
                Content::Tokens(dialect) => {
                    let count = world
                        .next_tokens((answer.ask.tokens, answer.ask.reasoning), answer.number, sent, contents)
                        .clamp(1, limit - sent);
                    dialect.tokens(&mut events, &facts, sent, count);
                    count
                }
                Content::Made(ready) => {
                    events.parts(&[ready.events.get(sent as usize).map_or(&[][..], Vec::as_slice)]);
                    1
                }
            };
            sent += count;
            contents += 1;
            pace.advance(count);
        }
        let ended = sent == limit;
        if ended {
            end(&mut events, answer, &facts);
        }
        let number = events.number;
        if ended && fault != Some(Fault::Close) {
            out.extend_from_slice(LAST_CHUNK);
        }
        (answer.sent, answer.events, answer.contents, answer.spoiled) = (sent, number, contents, spoiled);
        answer.pace = pace;
        ended
    }
}

/// What stands behind the last token.
fn end(events: &mut Events<'_>, answer: &Answer, facts: &Facts<'_>) {
    match (answer.fault, &answer.content) {
        (Some(Fault::Close), _) => {}
        (Some(Fault::ErrorEvent), Content::Tokens(dialect)) => dialect.fail(events, facts, SERVER_ERROR),
        (Some(Fault::ErrorEvent), Content::Made(_)) => events.json("error", &answer.vendor.object(500, SERVER_ERROR)),
        (_, Content::Tokens(dialect)) => dialect.close(events, facts),
        (_, Content::Made(_)) => {}
    }
}

fn id(key: u64, number: u64) -> [u8; ID_LEN] {
    let mut id = [0; ID_LEN];
    let (high, low) = id.split_at_mut(ID_LEN / 2);
    put_hex(high, key);
    put_hex(low, number);
    id
}

fn facts<'a>(stems: &'a mut [Stems], answer: &'a Answer, world: &'a World, id: &'a [u8; ID_LEN]) -> Facts<'a> {
    let templates = stems.get_mut(answer.place).map(|s| &mut s[usize::from(!answer.ask.stream)]);
    let template = templates.and_then(|t| t.get_mut(answer.ask.model));
    let stem = template.map_or(&[][..], |template| {
        template.patch(id, answer.created);
        &template.bytes
    });
    Facts {
        ask: &answer.ask,
        world,
        stem,
        id: std::str::from_utf8(id).unwrap_or_default(),
        number: answer.number,
        created: answer.created,
    }
}
