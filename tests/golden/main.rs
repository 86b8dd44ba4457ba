//! The reference's own records through our report: the files must say what the reference's files say.
//!
//! Each run's `profile_export.jsonl` becomes a record log (wall-clock stamps plus the values of its metrics give every
//! instant; a text is the decimal number of its tokens, which the stand-in tokenizer reads), and the summary written from
//! it is compared with the reference's summary field by field.

mod compare;
mod endings;
mod parts;
mod requests;
mod source;
mod summaries;
mod tables;
