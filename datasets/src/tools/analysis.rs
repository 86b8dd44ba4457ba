//! The reference's look at a Mooncake trace: lengths, shared prefixes, and what a cache without limits would answer.
//!
//! - *Context length*: tokens of a request's leading blocks that occur more than once in the trace.
//! - *Unique prompt length*: the rest of its input.
//! - *Theoretical hit rate*: share of a request's blocks before the first that no earlier request had.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::Error;
use crate::file::{Format, Options};
use crate::formats::draft::Prompt;
use crate::tools::stats::Distribution;

/// The look at a trace, as it is written to a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// Requests.
    pub total_requests: u64,
    /// Different shared prefixes, the empty one left aside.
    pub unique_prefixes: u64,
    /// Different first blocks that more than one request begins with.
    pub num_prefix_groups: u64,
    /// Hits of all requests over their blocks.
    pub cache_hit_rate: f64,
    /// Least input length.
    pub min_isl: f64,
    /// Most.
    pub max_isl: f64,
    /// Mean.
    pub avg_isl: f64,
    /// Least output length.
    pub min_osl: f64,
    /// Most.
    pub max_osl: f64,
    /// Mean.
    pub avg_osl: f64,
    /// Share of requests with a shared prefix.
    pub prefix_reuse_ratio: f64,
    /// Input lengths.
    pub isl_stats: Figures,
    /// Output lengths.
    pub osl_stats: Figures,
    /// Context lengths.
    pub context_length_stats: Figures,
    /// Unique prompt lengths.
    pub unique_prompt_length_stats: Figures,
    /// Theoretical hit rates.
    pub hit_rate_stats: Figures,
}

/// The figures of one row of the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std_dev: f64,
    /// Least.
    pub min: f64,
    /// First quartile.
    pub p25: f64,
    /// Median.
    pub median: f64,
    /// Third quartile.
    pub p75: f64,
    /// Most.
    pub max: f64,
}

impl Figures {
    fn of(values: Vec<f64>) -> Self {
        Distribution::of(values).map_or_else(Self::default, |d| Self {
            mean: d.mean,
            std_dev: d.std_dev,
            min: d.min,
            p25: d.p25,
            median: d.median,
            p75: d.p75,
            max: d.max,
        })
    }
}

/// A request: input and output length, blocks.
struct Request {
    input: u32,
    output: u32,
    blocks: Vec<i128>,
}

impl Analysis {
    /// Looks at a trace with hash ids.
    ///
    /// # Errors
    /// A sentence naming flag, or file, line and field; so for a file without lengths.
    pub fn of(options: &Options) -> Result<Self, Error> {
        let format = options.known_format()?;
        options.check(format)?;
        let requests = requests(options, format)?;
        if requests.is_empty() {
            return Err(Error(format!(
                "{}: no row has an `input_length`, so there is no trace to analyse",
                options.path.display()
            )));
        }
        Ok(analyse(&requests, options.block_size(format)))
    }
}

fn requests(options: &Options, format: Format) -> Result<Vec<Request>, Error> {
    let mut requests = Vec::new();
    options.sessions(format, &mut |draft| {
        for step in draft.steps {
            if let Prompt::Synthetic { length, hash_ids } = step.prompt {
                let output = step.turn.max_tokens.unwrap_or(0);
                requests.push(Request { input: length, output, blocks: hash_ids });
            }
        }
        Ok(())
    })?;
    Ok(requests)
}

fn analyse(requests: &[Request], block_size: u32) -> Analysis {
    let mut times: HashMap<i128, u32> = HashMap::new();
    let mut firsts: HashMap<i128, u32> = HashMap::new();
    for request in requests {
        request.blocks.iter().for_each(|id| *times.entry(*id).or_default() += 1);
        request.blocks.first().into_iter().for_each(|id| *firsts.entry(*id).or_default() += 1);
    }
    let (mut prefixes, mut seen): (HashSet<&[i128]>, HashSet<i128>) = (HashSet::new(), HashSet::new());
    let (mut contexts, mut unique, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hits, mut blocks, mut sharing) = (0, 0, 0u64);
    for request in requests {
        let shared = request.blocks.iter().take_while(|id| times.get(id).is_some_and(|n| *n > 1)).count();
        let context = (shared as u64 * u64::from(block_size)).min(u64::from(request.input));
        contexts.push(context as f64);
        unique.push((u64::from(request.input) - context) as f64);
        if shared > 0 {
            sharing += 1;
            prefixes.insert(&request.blocks[..shared]);
        }
        let hit = request.blocks.iter().take_while(|id| seen.contains(id)).count();
        seen.extend(&request.blocks);
        if !request.blocks.is_empty() {
            rates.push(hit as f64 / request.blocks.len() as f64);
        }
        hits += hit;
        blocks += request.blocks.len();
    }
    let isl = Figures::of(requests.iter().map(|r| f64::from(r.input)).collect());
    let osl = Figures::of(requests.iter().map(|r| f64::from(r.output)).collect());
    Analysis {
        total_requests: requests.len() as u64,
        unique_prefixes: prefixes.len() as u64,
        num_prefix_groups: firsts.values().filter(|n| **n > 1).count() as u64,
        cache_hit_rate: if blocks > 0 { hits as f64 / blocks as f64 } else { 0.0 },
        min_isl: isl.min,
        max_isl: isl.max,
        avg_isl: isl.mean,
        min_osl: osl.min,
        max_osl: osl.max,
        avg_osl: osl.mean,
        prefix_reuse_ratio: sharing as f64 / requests.len() as f64,
        isl_stats: isl,
        osl_stats: osl,
        context_length_stats: Figures::of(contexts),
        unique_prompt_length_stats: Figures::of(unique),
        hit_rate_stats: Figures::of(rates),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_prefixes_are_told_from_the_rest() {
        let request = |input, blocks: &[i128]| Request { input, output: 5, blocks: blocks.to_vec() };
        let a = analyse(&[request(40, &[1, 2, 3]), request(33, &[1, 2, 4]), request(10, &[9])], 16);
        assert_eq!((a.total_requests, a.unique_prefixes, a.num_prefix_groups), (3, 1, 1));
        assert_eq!((a.context_length_stats.max, a.unique_prompt_length_stats.min), (32.0, 1.0));
        assert!((a.cache_hit_rate - 2.0 / 7.0).abs() < 1e-12 && (a.prefix_reuse_ratio - 2.0 / 3.0).abs() < 1e-12);
        assert!((a.hit_rate_stats.max - 2.0 / 3.0).abs() < 1e-12);
    }
}
