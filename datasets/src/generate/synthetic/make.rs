//! The work that a plan asks for.

use super::plan::{Plan, TurnPlan};
use super::workshop::Workshop;
use crate::generate::corpus::Counted;
use crate::seed::Stream;
use crate::tokens::Message;
use crate::tokens::body_text;
use crate::{Conversation, Error, Media, Turn};

/// Rounds until a prompt inside a chat template has its length.
const ROUNDS: usize = 8;

impl Workshop<'_> {
    pub(super) fn carry_out(&self, plan: Plan) -> Result<Conversation, Error> {
        let context = self.options.prefix.context();
        let context = context.map(|tokens| self.texts.text(tokens, &mut Stream::new(plan.context, "context")));
        let mut conversation = Conversation {
            session_id: format!("session_{:06}", plan.index),
            system: self.system.clone(),
            user_context: context.transpose()?.map(|made| made.text),
            ..Conversation::default()
        };
        body_text::count_head(&mut conversation, self.tokenizer);
        for (k, turn) in plan.turns.into_iter().enumerate() {
            conversation.turns.push(self.turn(turn, k == 0)?);
        }
        Ok(conversation)
    }

    fn turn(&self, plan: TurnPlan, first: bool) -> Result<Turn, Error> {
        let mut turn = Turn {
            max_tokens: plan.osl,
            delay_ns: plan.delay_ns,
            audio_seconds: plan.audio.first().map(crate::media::audio::Plan::seconds),
            ..Turn::default()
        };
        let texts: Vec<Counted> =
            plan.texts.iter().map(|text| self.text(*text, &plan, first)).collect::<Result<_, _>>()?;
        let counted = match texts.as_slice() {
            [one] => Some(one.tokens),
            _ => None,
        };
        let mut texts = texts.into_iter().map(|made| made.text);
        if self.options.rankings.is_some() {
            let query = texts.next().unwrap_or_default();
            turn.texts.push(Media { name: "query".into(), ..query.into() });
            turn.texts.push(Media { name: "passages".into(), contents: texts.collect(), ..Media::default() });
        } else if !plan.texts.is_empty() {
            turn.texts.push(Media { contents: texts.collect(), ..Media::default() });
        }
        if let Some(gallery) = &self.gallery {
            turn.images = media(plan.images.iter().map(|image| gallery.make(image)))?;
        }
        if let Some(audio) = &self.options.audio {
            turn.audios = media(plan.audio.iter().map(|clip| audio.make(clip)))?;
        }
        if let Some(studio) = &self.studio {
            turn.videos = media(plan.videos.iter().map(|key| studio.make(*key)))?;
        }
        let tokens = counted.unwrap_or_else(|| body_text::input_tokens(&turn, self.tokenizer));
        let templated = self.tokenizer.has_chat_template();
        turn.input_tokens = Some(if templated { self.with_template(tokens, &turn, first) } else { tokens });
        Ok(turn)
    }

    /// One text of a turn, after its prefix if it has one.
    fn text(&self, (tokens, key): (u32, u64), plan: &TurnPlan, first: bool) -> Result<Counted, Error> {
        let mut stream = Stream::new(key, "prompt");
        if let Some(prefix) = plan.prefix.and_then(|at| self.prefixes.get(at)) {
            return self.texts.after(prefix, prefix.tokens + tokens, &mut stream);
        }
        let mut made = self.texts.text(tokens, &mut stream)?;
        if !first || self.options.rankings.is_some() {
            return Ok(made);
        }
        // What meets a template's own words may be encoded otherwise than by itself.
        let (asked, mut body) = (tokens + self.overhead.around(true), tokens);
        for _ in 0..ROUNDS {
            let message = Message { role: "user", content: &made.text };
            match self.tokenizer.count_chat(&[message]).map(|n| n as u32) {
                None => break,
                Some(n) if n == asked => break,
                Some(n) => body = (body + asked).saturating_sub(n).max(1),
            }
            made = self.texts.text(body, &mut stream)?;
        }
        Ok(made)
    }

    /// The input tokens of a turn: under a chat template a first turn's are those of a request without a head, and a
    /// later one's what it adds to its session, with the marks around the answer before it and without its text.
    fn with_template(&self, tokens: u32, turn: &Turn, first: bool) -> u32 {
        if !first {
            return tokens + self.overhead.exchange();
        }
        let joined = turn.all_texts().collect::<Vec<_>>().join(" ");
        let own = Message { role: "user", content: &joined };
        self.tokenizer.count_chat(&[own]).map_or(tokens, |n| n as u32)
    }
}

fn media(contents: impl Iterator<Item = Result<String, Error>>) -> Result<Vec<Media>, Error> {
    let contents: Vec<String> = contents.collect::<Result<_, _>>()?;
    Ok(if contents.is_empty() { Vec::new() } else { vec![Media { contents, ..Media::default() }] })
}
